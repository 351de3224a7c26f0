#!/usr/bin/env bash
# outlines-core 0.2.14 (Linux, Python 3.11): an allOf of two objects is one object behind the other, which is no JSON.
#
# Guess: a text that matches the regular expression of a schema is JSON, and valid by the schema; a schema that no regular expression can express is
# refused, as `not` is and as an allOf with a bare {"minimum": 3} is.
# Seen: the expressions of an allOf are joined as they are, so a text has to match the first and then the second. Inheritance in OpenAPI documents is
# written so (a reference to the base, and the fields that are added): the object that is meant is forbidden, and what is allowed cannot be read:
#     {"a":1,"b":2}    False
#     {"a":1}{"b":2}   True
#     "type": integer, twice: 12 True, 1 False
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q outlines-core==0.2.14
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
import json
import re

from outlines_core.json_schema import build_regex_from_schema


def allowed(schema, text):
    return re.fullmatch(build_regex_from_schema(json.dumps(schema)), text) is not None


parts = [{"type": "object", "properties": {name: {"type": "integer"}}, "required": [name]} for name in "ab"]
for text in ('{"a":1,"b":2}', '{"a":1}{"b":2}'):
    print(f"{text:16}", allowed({"allOf": parts}, text))
twice = {"allOf": [{"type": "integer"}, {"type": "integer"}]}
print('"type": integer, twice: 12', f"{allowed(twice, '12')}, 1", allowed(twice, "1"))
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
{"a":1,"b":2}    False
{"a":1}{"b":2}   True
"type": integer, twice: 12 True, 1 False
SEEN
