#!/usr/bin/env bash
# llguidance 1.9.1 (Linux, Python 3.11): "format": "date" takes the 29th of February in every year.
#
# Guess: a format that is enforced is enforced as RFC 3339 has it: 2023-02-30 is refused, and so is 2023-02-29.
# Seen: the length of each month is known (30 February and 31 April are refused), and leap years are not:
#     2024-02-29 True
#     2023-02-29 True
#     2023-02-30 False
#     2023-04-31 False
# A validator that reads the answer afterwards (jsonschema's format checker) calls the second one invalid.
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q llguidance==1.9.1
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper


class Bytes:
    eos_token_id, bos_token_id, special_token_ids = 256, None, [256]
    tokens = [*(bytes([byte]) for byte in range(256)), b"<eos>"]

    def __call__(self, text):
        return list(text if isinstance(text, bytes) else text.encode())


tokenizer = LLTokenizer(TokenizerWrapper(Bytes()))
grammar = LLMatcher.grammar_from_json_schema({"type": "string", "format": "date"})
for date in ("2024-02-29", "2023-02-29", "2023-02-30", "2023-04-31"):
    matcher = LLMatcher(tokenizer, grammar, log_level=0)
    said = list(f'"{date}"'.encode())
    print(date, matcher.try_consume_tokens(said) == len(said) and matcher.is_accepting())
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
2024-02-29 True
2023-02-29 True
2023-02-30 False
2023-04-31 False
SEEN
