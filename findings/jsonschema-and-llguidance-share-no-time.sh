#!/usr/bin/env bash
# llguidance 1.9.1, jsonschema 4.26.0, pydantic 2.14.3 (Linux, Python 3.11): no text is a time for both of the first two.
#
# Guess: {"format": "time"} means RFC 3339's time ("12:00:00Z", with its zone) in each library, or less where one is lenient: what the strict
# one writes is valid for the others. The checkers of formats that jsonschema has are one.
# Seen: llguidance wants the zone. jsonschema's FormatChecker(), without further packages, reads hours, minutes and seconds, and refuses
# what follows them: what a model writes by the schema that pydantic makes for datetime.time is invalid, and what is valid cannot be
# written. A validator's own FORMAT_CHECKER takes any text:
#                     llguidance FormatChecker() FORMAT_CHECKER pydantic
#     12:00:00        False      True            True           True
#     12:00:00Z       True       False           True           True
#     12:00:00+02:00  True       False           True           True
#     noon            False      False           True           False
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q llguidance==1.9.1 jsonschema==4.26.0 pydantic==2.14.3
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
import json
from datetime import time

from jsonschema import Draft202012Validator, FormatChecker
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from pydantic import TypeAdapter, ValidationError


class Bytes:
    """A vocabulary of all bytes and an end token."""

    eos_token_id, bos_token_id, special_token_ids = 256, None, [256]
    tokens = [*(bytes([byte]) for byte in range(256)), b"<end>"]

    def __call__(self, text):
        return list(text if isinstance(text, bytes) else text.encode())


tokenizer = LLTokenizer(TokenizerWrapper(Bytes()))
schema = TypeAdapter(time).json_schema()
assert schema == {"type": "string", "format": "time"}
checkers = FormatChecker(), Draft202012Validator.FORMAT_CHECKER
validators = [Draft202012Validator(schema, format_checker=checker) for checker in checkers]


def generated(text):
    matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_json_schema(json.dumps(schema)), log_level=0)
    said = list(json.dumps(text).encode())
    return matcher.try_consume_tokens(said) == len(said) and matcher.is_accepting()


def read(text):
    try:
        TypeAdapter(time).validate_json(json.dumps(text))
    except ValidationError:
        return False
    return True


print(f"{'':15} llguidance FormatChecker() FORMAT_CHECKER pydantic")
for text in ("12:00:00", "12:00:00Z", "12:00:00+02:00", "noon"):
    valid = [validator.is_valid(text) for validator in validators]
    print(f"{text:15} {generated(text)!s:10} {valid[0]!s:15} {valid[1]!s:14} {read(text)}")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
                llguidance FormatChecker() FORMAT_CHECKER pydantic
12:00:00        False      True            True           True
12:00:00Z       True       False           True           True
12:00:00+02:00  True       False           True           True
noon            False      False           True           False
SEEN
