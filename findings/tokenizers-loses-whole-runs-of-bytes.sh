#!/usr/bin/env bash
# tokenizers 0.23.3 (Linux, Python 3.11): one cut character turns all characters before it into U+FFFD.
#
# Guess: where an answer ends in the middle of a character that is spelled in byte tokens, because max_tokens is reached, the decoder
# replaces that character, as Python's bytes.decode(errors="replace") and the ByteLevel decoder do.
# Seen: the ByteFallback decoder (tokenizers of the SentencePiece family) decodes a run of byte tokens as a whole or not at all. With one
# byte missing at its end, every byte of the run becomes a U+FFFD, also those of characters that were complete. A text in
# a script that the vocabulary lacks is one long run, so a cut answer is lost from its first character on:
#     9 of 9 byte tokens: 日本語
#     8 of 9 byte tokens: U+FFFD x 8
#     the same 8 bytes in Python: 日本 + U+FFFD x 1
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q tokenizers==0.23.3
PYTHONUTF8=1 "$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
from tokenizers import Tokenizer, decoders, models


def shown(text):
    kept = text.replace("\ufffd", "")
    return " + ".join(filter(None, [kept, f"U+FFFD x {len(text) - len(kept)}" if kept != text else ""]))


vocabulary = {"<unk>": 0, **{f"<0x{byte:02X}>": 1 + byte for byte in range(256)}}
tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
text = "日本語"
ids = tokenizer.encode(text).ids
for count in (9, 8):
    print(f"{count} of 9 byte tokens:", shown(tokenizer.decode(ids[:count])))
print("the same 8 bytes in Python:", shown(text.encode()[:8].decode(errors="replace")))
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
9 of 9 byte tokens: 日本語
8 of 9 byte tokens: U+FFFD x 8
the same 8 bytes in Python: 日本 + U+FFFD x 1
SEEN
