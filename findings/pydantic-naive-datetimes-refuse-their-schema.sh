#!/usr/bin/env bash
# pydantic 2.14.3, llguidance 1.9.1 (Linux, Python 3.11): no text is valid both for NaiveDatetime and for its schema.
#
# Guess: the schema that pydantic makes for a type describes what the type takes, or more. A model that is held to it writes a value that can be read, if
# no rule beyond the schema is broken.
# Seen: the schema of NaiveDatetime is {"format": "date-time"}, as that of AwareDatetime. The format (RFC 3339) demands a time zone, and the type
# refuses each text that has one. Constrained decoding writes a text that the validation behind it always refuses:
#                           by the schema  AwareDatetime  NaiveDatetime
#     2026-01-01T12:00:00   False          False          True
#     2026-01-01T12:00:00Z  True           True           False
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pydantic==2.14.3 llguidance==1.9.1
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
import json

from llguidance import LLMatcher, LLTokenizer
from pydantic import AwareDatetime, NaiveDatetime, TypeAdapter, ValidationError

naive, aware = TypeAdapter(NaiveDatetime), TypeAdapter(AwareDatetime)
assert naive.json_schema() == aware.json_schema()
grammar = LLMatcher.grammar_from_json_schema(json.dumps(naive.json_schema()))
tokenizer = LLTokenizer("byte")


def reads(adapter, text):
    try:
        adapter.validate_json(text)
    except ValidationError:
        return False
    return True


print(f"{'':20}  by the schema  AwareDatetime  NaiveDatetime")
for moment in ("2026-01-01T12:00:00", "2026-01-01T12:00:00Z"):
    text = json.dumps(moment).encode()
    matcher = LLMatcher(tokenizer, grammar)
    taken = matcher.try_consume_tokens(list(text)) == len(text) and matcher.is_accepting()
    print(f"{moment:20}  {taken!s:13}  {reads(aware, text)!s:13}  {reads(naive, text)}")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
                      by the schema  AwareDatetime  NaiveDatetime
2026-01-01T12:00:00   False          False          True
2026-01-01T12:00:00Z  True           True           False
SEEN
