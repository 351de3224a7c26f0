#!/usr/bin/env bash
# transformers 5.23.0, tokenizers 0.23.3 (Linux, Python 3.11): AutoTokenizer reads text by the class of the model's type, not
# by the rules in tokenizer.json.
#
# Guess: a folder with a valid tokenizer.json is read as that file says; model_type in config.json decides nothing about text.
# Seen: the same tokenizer.json (SentencePiece-shaped BPE with byte fallback, spaces as U+2581) keeps its spaces under
# model_type llama, and loses every one of them under model_type qwen2, without an error or a warning:
#     llama 'a b c'
#     qwen2 'abc'
# The vocabulary and the merges are taken from the file; its normalizer, pre-tokenizer and decoder are not.
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.23.0 tokenizers==0.23.3
"$folder/venv/bin/python" - "$folder" >"$folder/seen" 2>/dev/null <<'PYTHON'
import json, pathlib, sys

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from transformers import AutoTokenizer

mark = "\u2581"
tokens = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), mark, *map(chr, range(33, 127))]
made = Tokenizer(models.BPE({token: n for n, token in enumerate(tokens)}, [], byte_fallback=True, unk_token="<unk>"))
made.normalizer = normalizers.Replace(" ", mark)
made.decoder = decoders.Sequence([decoders.Replace(mark, " "), decoders.ByteFallback(), decoders.Fuse()])
made.add_special_tokens([AddedToken("</s>", special=True, normalized=False)])
for model_type in ("llama", "qwen2"):
    folder = pathlib.Path(sys.argv[1], model_type)
    folder.mkdir()
    made.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    loaded = AutoTokenizer.from_pretrained(folder)
    print(model_type, repr(loaded.decode(loaded.encode("a b c", add_special_tokens=False))))
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
llama 'a b c'
qwen2 'abc'
SEEN
