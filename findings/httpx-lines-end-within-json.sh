#!/usr/bin/env bash
# httpx 0.28.1 (Python 3.11): iter_lines ends a line within a JSON text, at characters that a model may say.
#
# Guess: lines of a response end with CR, LF or both, as the standard of server-sent events has it, and as lines of JSON (JSONL, NDJSON)
# are written; json.dumps escapes every line end that a text holds.
# Seen: httpx uses str.splitlines, which also ends a line at U+2028 and U+2029, U+0085, and four controls. JSON allows the first three
# unescaped, and json.dumps(ensure_ascii=False), orjson and JavaScript's JSON.stringify write them so. The event is cut in two,
# neither of which is JSON. An answer breaks when a model quotes a web page that has such a character, and never in a test:
#     'a b'       1 line, read
#     'a\u2028b'  2 lines, JSONDecodeError
#     'a\x85b'    2 lines, JSONDecodeError
# Splitting response.iter_bytes() at b"\n" avoids it. Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q httpx==0.28.1
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
import json

import httpx

for text in ("a b", "a\u2028b", "a\x85b"):
    event = json.dumps({"text": text}, ensure_ascii=False)
    lines = list(httpx.Response(200, content=f"{event}\n".encode()).iter_lines())
    try:
        read = "read" if json.loads(lines[0]) == {"text": text} else "read wrongly"
    except ValueError as error:
        read = type(error).__name__
    print(f"{text!r:11} {len(lines)} line{'s' * (len(lines) > 1)}, {read}")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
'a b'       1 line, read
'a\u2028b'  2 lines, JSONDecodeError
'a\x85b'    2 lines, JSONDecodeError
SEEN
