#!/usr/bin/env bash
# openai 3.57.0 (Python 3.11): a comment that keeps a stream alive is read as an event, once any event had an `id`.
#
# Guess: a line that begins with a colon is nothing, and a blank line after it ends nothing, since there is no data. That is what the
# standard of server-sent events says, and what a keep-alive of most frameworks looks like.
# Seen: the last id is remembered, as the standard has it, and counts as the content of an event whose data is empty, which is no JSON.
# A comment with one line break, which the standard allows as well, is passed over.
#     events with an id, comment with a blank line:     JSONDecodeError
#     events with an id, comment with one line break:   two words
#     events without an id, comment with a blank line:  two words
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q openai==3.57.0
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from openai import OpenAI


def chunk(text):
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    head = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "m"}
    return f"data: {json.dumps({**head, 'choices': [choice]})}\n\n"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        event_id, end = self.server.way
        words = [f"{event_id}{chunk(text)}" for text in ("two ", "words")]
        self.wfile.write(f": keep-alive{end}".join(words).encode() + b"data: [DONE]\n\n")

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = OpenAI(base_url=f"http://127.0.0.1:{server.server_port}", api_key="none", max_retries=0)
for about, *server.way in (
    ("events with an id, comment with a blank line:    ", "id: 1\n", "\n\n"),
    ("events with an id, comment with one line break:  ", "id: 1\n", "\n"),
    ("events without an id, comment with a blank line: ", "", "\n\n"),
):
    try:
        stream = client.chat.completions.create(model="m", messages=[], stream=True)
        print(about, "".join(each.choices[0].delta.content for each in stream))
    except json.JSONDecodeError as error:
        print(about, type(error).__name__)
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
events with an id, comment with a blank line:     JSONDecodeError
events with an id, comment with one line break:   two words
events without an id, comment with a blank line:  two words
SEEN
