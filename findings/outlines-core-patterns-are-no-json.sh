#!/usr/bin/env bash
# outlines-core 0.2.14, jsonschema 4.26.0 (Linux, Python 3.11): a dot in a pattern is a quote, and a pattern is the whole text.
#
# Guess: {"pattern": ...} is searched for in the string, as JSON Schema has it, and the string is written in JSON: a quote within it as \".
# Seen: the pattern is set between two quotes as it is. A dot, and a class that excludes a few characters, takes a bare quote, which ends the string, and a
# line break; \" is two characters for it. A pattern that is meant to be found anywhere is the whole text, and one with only ^ allows nothing:
#                  outlines-core  JSON, and valid by the schema
#     ^.$    "x"   True           True
#     ^.$    """   True           False
#     ^.$    "\""  False          True
#     ^[^x]$ """   True           False
#     id     "id7" False          True
#     id     "id"  True           True
#     ^id    "id"  False          True
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q outlines-core==0.2.14 jsonschema==4.26.0
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
import json
import re

import jsonschema
from outlines_core.json_schema import build_regex_from_schema

print(f"{'':12} outlines-core  JSON, and valid by the schema")
for pattern, text in (
    ("^.$", '"x"'),
    ("^.$", '"""'),
    ("^.$", r'"\""'),
    ("^[^x]$", '"""'),
    ("id", '"id7"'),
    ("id", '"id"'),
    ("^id", '"id"'),
):
    schema = {"type": "string", "pattern": pattern}
    allowed = re.fullmatch(build_regex_from_schema(json.dumps(schema)), text) is not None
    try:
        jsonschema.validate(json.loads(text), schema)
        valid = True
    except (json.JSONDecodeError, jsonschema.ValidationError):
        valid = False
    print(f"{pattern:6} {text:5} {allowed!s:13}  {valid}")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
             outlines-core  JSON, and valid by the schema
^.$    "x"   True           True
^.$    """   True           False
^.$    "\""  False          True
^[^x]$ """   True           False
id     "id7" False          True
id     "id"  True           True
^id    "id"  False          True
SEEN
