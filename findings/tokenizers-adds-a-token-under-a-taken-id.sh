#!/usr/bin/env bash
# tokenizers 0.23.3 (Linux, Python 3.11): an added token gets the id of another token, if the vocabulary has a hole.
#
# Guess: add_tokens gives a new token the lowest id above all that are in use, or raises an error.
# Seen: the new id is the NUMBER of tokens. A vocabulary whose ids have a gap (reserved ids that are not listed, removed tokens) holds
# fewer tokens than its highest id says, so the new token takes an id that is in use. Both encode to it, it decodes to the
# new token only, and the file that is saved keeps it so. A model then reads the new marker as another word's embedding, and every such
# word in an answer comes out as the marker:
#     ids: {'<unk>': 1, 'a': 0, 'new': 3, 'z': 3}
#     'z new' -> [3, 3] -> 'new new'
#     the same after saving and loading: [3, 3] -> 'new new'
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q tokenizers==0.23.3
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
from tokenizers import Tokenizer, models, pre_tokenizers

tokenizer = Tokenizer(models.WordLevel({"a": 0, "<unk>": 1, "z": 3}, unk_token="<unk>"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer.add_tokens(["new"])
print("ids:", dict(sorted(tokenizer.get_vocab().items())))
ids = tokenizer.encode("z new").ids
print("'z new' ->", ids, "->", repr(tokenizer.decode(ids)))
loaded = Tokenizer.from_str(tokenizer.to_str())
ids = loaded.encode("z new").ids
print("the same after saving and loading:", ids, "->", repr(loaded.decode(ids)))
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
ids: {'<unk>': 1, 'a': 0, 'new': 3, 'z': 3}
'z new' -> [3, 3] -> 'new new'
the same after saving and loading: [3, 3] -> 'new new'
SEEN
