#!/usr/bin/env bash
# tokenizers 0.23.3 (Linux, Python 3.11): of four kinds of models, one leaves out characters that it does not know.
#
# Guess: a tokenizer without an unknown token that meets a character outside its vocabulary raises an error. WordLevel, WordPiece and
# Unigram do.
# Seen: BPE, the kind that nearly every language model has, leaves the character out. The encoding has no gap and no mark, offsets pass over it,
# and decode gives a text without it. A vocabulary that was cut, or trained with a smaller alphabet, turns "5 €" into "5 " for the model:
#     WordLevel  Exception
#     WordPiece  Exception
#     Unigram    Exception
#     BPE        ['5', ' ', '5'] -> '5 5'
# Nothing warns. Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q tokenizers==0.23.3
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
from tokenizers import Tokenizer, decoders, models

vocabulary = {"5": 0, " ": 1}
for model in (
    models.WordLevel(vocabulary),
    models.WordPiece(vocabulary),
    models.Unigram([("5", -1.0), (" ", -1.0)]),
    models.BPE(vocabulary, []),
):
    tokenizer = Tokenizer(model)
    tokenizer.decoder = decoders.Fuse()
    name = type(model).__name__
    try:
        encoding = tokenizer.encode("5 €5")
        print(f"{name:10} {encoding.tokens} -> {tokenizer.decode(encoding.ids)!r}")
    except Exception as error:
        print(f"{name:10} {type(error).__name__}")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
WordLevel  Exception
WordPiece  Exception
Unigram    Exception
BPE        ['5', ' ', '5'] -> '5 5'
SEEN
