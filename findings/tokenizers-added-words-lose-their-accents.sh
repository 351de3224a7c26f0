#!/usr/bin/env bash
# tokenizers 0.23.3 (Linux, Python 3.11): an added token "café" decodes to "caf" and U+FFFD, and an added "日本" to itself.
#
# Guess: an added token is text, and decodes to that text, whatever the tokenizer's decoder does to the pieces of words.
# Seen: the decoder gets added tokens too. ByteLevel, which GPT-2's successors, Llama 3 and Qwen have, writes each byte as a letter, and letters
# as é, ß and £ are in that alphabet: they are read back as bytes that are no UTF-8. A token with any character outside of the alphabet is left alone,
# a space or an ideograph for example, so it depends on the word. encode finds the token, and a test with an English word passes:
#     'size'   -> 'size'
#     'café'   -> 'caf\ufffd'
#     'Straße' -> 'Stra\ufffde'
#     '£'      -> '\ufffd'
#     '日本'     -> '日本'
#     'le café' -> 'le café'
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q tokenizers==0.23.3
PYTHONUTF8=1 "$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
words = ["size", "café", "Straße", "£", "日本", "le café"]
for word in words:
    tokenizer = Tokenizer(models.BPE({letter: n for n, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    assert tokenizer.decode(tokenizer.encode(word).ids) == word
    tokenizer.add_tokens([word])
    (number,) = tokenizer.encode(word).ids
    print(f"{word!r:8} -> {tokenizer.decode([number])!r}".replace("\ufffd", "\\ufffd"))
PYTHON
cat "$folder/seen"
diff -b "$folder/seen" - <<'SEEN'
'size'   -> 'size'
'café'   -> 'caf\ufffd'
'Straße' -> 'Stra\ufffde'
'£'      -> '\ufffd'
'日本'     -> '日本'
'le café' -> 'le café'
SEEN
