#!/usr/bin/env bash
# celery 5.7.0 (Python 3.11): the RETRY of a task's first try replaces the SUCCESS of its second one, and get() waits for ever.
#
# Guess: a try is noted as RETRY before the next one is sent; and a SUCCESS stands in any case, because a backend reads the stored state first.
# Seen: retry() sends the next try, and RETRY is stored afterwards. The look at the stored state and the write are two steps, so a SUCCESS that comes
# between them is lost. Two threads (or two workers) and a countdown of 0 are enough for it; here the first try's write takes long enough each time:
#     second try: paid
#     stored: RETRY
#     get(timeout=3): TimeoutError
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q celery==5.7.0
cat >"$folder/slow.py" <<'PYTHON'
import threading

from celery.backends.cache import CacheBackend

paid, retried = threading.Event(), threading.Event()


class Slow(CacheBackend):
    """Takes its time to write RETRY, as a server far away would."""

    def _set_with_state(self, key, value, state):
        if state == "RETRY":
            paid.wait(30)
        super()._set_with_state(key, value, state)
        {"SUCCESS": paid, "RETRY": retried}[state].set()
PYTHON
PYTHONPATH="$folder" "$folder/venv/bin/python" >"$folder/seen" 2>/dev/null <<'PYTHON'
from celery import Celery
from celery.contrib.testing.worker import start_worker

from slow import retried

app = Celery("app", broker="memory://", backend="slow.Slow+memory://")
app.conf.worker_prefetch_multiplier = 2


@app.task(bind=True)
def pay(self):
    if not self.request.retries:
        raise self.retry(countdown=0)
    print("second try: paid", flush=True)
    return "paid"


with start_worker(app, perform_ping_check=False, pool="threads", concurrency=2):
    result = pay.delay()
    retried.wait(60)
    print("stored:", result.state)
    try:
        outcome = result.get(timeout=3)
    except Exception as error:
        outcome = type(error).__name__
    print("get(timeout=3):", outcome)
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
second try: paid
stored: RETRY
get(timeout=3): TimeoutError
SEEN
