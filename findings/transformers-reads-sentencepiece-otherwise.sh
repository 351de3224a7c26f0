#!/usr/bin/env bash
# transformers 5.23.0, sentencepiece 0.2.3 (Linux, Python 3.11): a tokenizer.model is read in another way than by SentencePiece.
#
# Guess: AutoTokenizer gives a text the tokens that SentencePiece gives it with the same file, as transformers 4 did by calling that library.
# Which algorithm (BPE, unigram) and whether a space goes before the text is written in the file.
# Seen: transformers 5 converts the file. LlamaTokenizer makes a BPE of every file, so a unigram vocabulary cuts words into other pieces;
# and where the folder names no class, the space before the text is left out, so its first word is another token. Decoding gives the text
# back in each case, so a round trip does not show it; a model answers a little worse:
#     bpe,     LlamaTokenizer   equal
#     bpe,     no class named   the first word differs
#     unigram, LlamaTokenizer   other pieces
#     unigram, no class named   the first word differs
# Nothing warns. Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.23.0 sentencepiece==0.2.3 protobuf==7.36.2 tokenizers==0.23.3
"$folder/venv/bin/python" - "$folder" >"$folder/seen" 2>/dev/null <<'PYTHON'
import json, sys
from pathlib import Path

from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from transformers import AutoTokenizer

SENTENCES = ["the cat sat on the mat", "a dog and a cat and a mat", "there the others sat", "mats and cats and dogs"]
TEXT = "cats sat there and the mats and the dog"
for kind in ("bpe", "unigram"):
    for label, described in (("LlamaTokenizer", {"tokenizer_class": "LlamaTokenizer"}), ("no class named", None)):
        folder = Path(sys.argv[1], kind, label)
        folder.mkdir(parents=True)
        SentencePieceTrainer.train(
            sentence_iterator=iter(SENTENCES * 20), model_prefix=str(folder / "tokenizer"), vocab_size=300, model_type=kind,
            byte_fallback=True, normalization_rule_name="identity", hard_vocab_limit=False, minloglevel=2,
        )
        (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
        if described is not None:
            (folder / "tokenizer_config.json").write_text(json.dumps(described))
        meant = SentencePieceProcessor(model_file=str(folder / "tokenizer.model")).encode(TEXT, out_type=str)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        ids = tokenizer.encode(TEXT, add_special_tokens=False)
        seen = tokenizer.convert_ids_to_tokens(ids)
        assert tokenizer.decode(ids).strip() == TEXT
        rest = len(seen) >= len(meant) - 3 and seen[-3:] == meant[-3:]
        first = "the first word differs" if "".join(seen) != "".join(meant) and rest else "other pieces"
        print(f"{kind + ',':8} {label}   {'equal' if seen == meant else first}")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
bpe,     LlamaTokenizer   equal
bpe,     no class named   the first word differs
unigram, LlamaTokenizer   other pieces
unigram, no class named   the first word differs
SEEN
