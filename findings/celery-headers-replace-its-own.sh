#!/usr/bin/env bash
# celery 5.7.0 (Python 3.11): a header of one's own called "retries" uses up the retries, and one called "id" loses the result.
#
# Guess: apply_async(headers={...}) hands over what the caller adds: the task reads it in request.headers, beside the fields of the protocol,
# which keep their values; or a name that the protocol has is refused.
# Seen: both are one dictionary, and the caller's value wins. `group`, `origin`, `lang`, `id` and `retries` are likely names for headers: the
# first four are missing in request.headers, a retry fails at the first try, and under another id nobody finds the result:
#     {'tenant': 'a'}  request.headers {'tenant': 'a'}, result: done after 1 retry
#     {'lang': 'de'}   request.headers None, result: done after 1 retry
#     {'retries': 3}   request.headers None, result: MaxRetriesExceededError
#     {'id': 'order'}  request.headers None, result: PENDING
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q celery==5.7.0
"$folder/venv/bin/python" >"$folder/seen" 2>/dev/null <<'PYTHON'
import queue

from celery import Celery
from celery.contrib.testing.worker import start_worker

app = Celery("app", broker="memory://", backend="cache+memory://")
seen = queue.Queue()


@app.task(bind=True, max_retries=3)
def work(self):
    if self.request.retries != 1:
        seen.put(self.request.headers)
        raise self.retry(countdown=0)
    return "done after 1 retry"


@app.task
def last():
    pass


with start_worker(app, perform_ping_check=False, pool="solo"):
    for headers in ({"tenant": "a"}, {"lang": "de"}, {"retries": 3}, {"id": "order"}):
        result = work.apply_async(headers=headers)
        found = seen.get(timeout=60)
        if "id" in headers:
            last.delay().get(timeout=60)
            outcome = result.state
        else:
            try:
                outcome = result.get(timeout=60)
            except Exception as error:
                outcome = type(error).__name__
        print(f"{headers!s:16} request.headers {found}, result: {outcome}")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
{'tenant': 'a'}  request.headers {'tenant': 'a'}, result: done after 1 retry
{'lang': 'de'}   request.headers None, result: done after 1 retry
{'retries': 3}   request.headers None, result: MaxRetriesExceededError
{'id': 'order'}  request.headers None, result: PENDING
SEEN
