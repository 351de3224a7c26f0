#!/usr/bin/env bash
# llguidance 1.9.1 (Linux, Python 3.11): a keyword that asks for nothing is refused, and one that does not exist is not.
#
# Guess: "uniqueItems": false, the default that JSON Schema gives the keyword, is the same schema as without it; a keyword
# that no draft has is the more likely one to be an error.
# Seen: the other way round:
#     {"type": "array", "uniqueItems": false} Unimplemented keys: ["uniqueItems"]
#     {"type": "array", "uniqueItem": true}
# So many real schemas, which write the default out, do not compile, and one with a slip of the pen does and enforces nothing.
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q llguidance==1.9.1
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
import json

from llguidance import LLMatcher

for schema in ({"type": "array", "uniqueItems": False}, {"type": "array", "uniqueItem": True}):
    error = LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(schema))
    print(json.dumps(schema), error.splitlines()[0] if error else "")
PYTHON
cat "$folder/seen"
diff -b "$folder/seen" - <<'SEEN'
{"type": "array", "uniqueItems": false} Unimplemented keys: ["uniqueItems"]
{"type": "array", "uniqueItem": true}
SEEN
