#!/usr/bin/env bash
# pydantic 2.14.3, llguidance 1.9.1 (Linux, Python 3.11): half of the durations that pydantic writes are none by the schema that pydantic makes.
#
# Guess: the schema of a timedelta is {"type": "string", "format": "duration"}, and what pydantic writes for one is valid for it. The format is that of
# RFC 3339, appendix A.
# Seen: that grammar has no fractions, no sign, and no gaps: minutes stand between hours and seconds, and months between years and days. pydantic writes
# and reads ISO 8601 more freely, and a year (365 days) for a long duration. A value that is shown to a model as an example cannot be said
# by a model that is held to the schema, and a strict reader of the format refuses it:
#     P1DT2H   by the schema: True   pydantic reads it: True
#     PT1H5M   by the schema: True   pydantic reads it: True
#     PT1H5S   by the schema: False  pydantic reads it: True
#     PT0.5S   by the schema: False  pydantic reads it: True
#     -P1D     by the schema: False  pydantic reads it: True
#     P1Y35D   by the schema: False  pydantic reads it: True
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pydantic==2.14.3 llguidance==1.9.1
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
import json
from datetime import timedelta

from llguidance import LLMatcher, LLTokenizer
from pydantic import TypeAdapter

duration = TypeAdapter(timedelta)
grammar = LLMatcher.grammar_from_json_schema(json.dumps(duration.json_schema()))
tokenizer = LLTokenizer("byte")
for value in (
    timedelta(days=1, hours=2),
    timedelta(hours=1, minutes=5),
    timedelta(hours=1, seconds=5),
    timedelta(seconds=0.5),
    timedelta(days=-1),
    timedelta(days=400),
):
    written = duration.dump_json(value)
    matcher = LLMatcher(tokenizer, grammar)
    taken = matcher.try_consume_tokens(list(written)) == len(written) and matcher.is_accepting()
    print(f"{json.loads(written):8} by the schema: {taken!s:5}  pydantic reads it: {duration.validate_json(written) == value}")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
P1DT2H   by the schema: True   pydantic reads it: True
PT1H5M   by the schema: True   pydantic reads it: True
PT1H5S   by the schema: False  pydantic reads it: True
PT0.5S   by the schema: False  pydantic reads it: True
-P1D     by the schema: False  pydantic reads it: True
P1Y35D   by the schema: False  pydantic reads it: True
SEEN
