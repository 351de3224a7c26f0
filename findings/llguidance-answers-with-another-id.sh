#!/usr/bin/env bash
# llguidance 1.9.1 (Linux, Python 3.11): an enum of identifiers allows other identifiers, and forbids its own.
#
# Guess: the digits of an integer in a schema are the digits that an answer may have. JSON has no bound on integers, Python and Rust have
# integers of 64 bits and more, and llguidance works on texts.
# Seen: schemas are read in double precision. Of two numbers above 2**53 every second one is another number, and those of 18 and 19 digits
# (identifiers of messages, users and orders in many systems) nearly always are: the model is held to an identifier that nobody gave it.
#     enum 1175842156394905612   itself: False  1175842156394905600: True
#     const 9007199254740993     itself: False  9007199254740992: True
#     minimum 9007199254740993   itself: True   9007199254740992: True
#     the same enum as a text    itself: True
# There is no error. Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q llguidance==1.9.1
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
import json

from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper


class Bytes:
    """A vocabulary of all bytes and an end token."""

    eos_token_id, bos_token_id, special_token_ids = 256, None, [256]
    tokens = [*(bytes([byte]) for byte in range(256)), b"<end>"]

    def __call__(self, text):
        return list(text if isinstance(text, bytes) else text.encode())


tokenizer = LLTokenizer(TokenizerWrapper(Bytes()))


def allowed(schema, value):
    matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_json_schema(json.dumps(schema)), log_level=0)
    said = list(json.dumps(value).encode())
    return matcher.try_consume_tokens(said) == len(said) and matcher.is_accepting()


for keyword, value, neighbour in (
    ("enum", 1175842156394905612, 1175842156394905600),
    ("const", 9007199254740993, 9007199254740992),
    ("minimum", 9007199254740993, 9007199254740992),
):
    schema = {"type": "integer", keyword: [value] if keyword == "enum" else value}
    name = f"{keyword} {value}"
    print(f"{name:26} itself: {allowed(schema, value)!s:6} {neighbour}: {allowed(schema, neighbour)}")
text = "1175842156394905612"
print(f"{'the same enum as a text':26} itself: {allowed({'type': 'string', 'enum': [text]}, text)}")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
enum 1175842156394905612   itself: False  1175842156394905600: True
const 9007199254740993     itself: False  9007199254740992: True
minimum 9007199254740993   itself: True   9007199254740992: True
the same enum as a text    itself: True
SEEN
