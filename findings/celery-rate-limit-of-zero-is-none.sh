#!/usr/bin/env bash
# celery 5.7.0 (Python 3.11): a task that may run zero times in a minute runs without a limit.
#
# Guess: rate_limit="0/m" holds a task back, as a limit that is made smaller and smaller does: to pause a kind of work while a service is
# down, one sets its limit to zero.
# Seen: zero is the limit that is switched off. Setting it while the worker runs answers "new rate limit set successfully", as for any other
# limit. Tasks that come then run at once, and those that the limit before has held back still wait for their hour:
#     rate_limit="1/h"  1 of 5 tasks run
#     rate_limit="0/h"  5 of 5 tasks run
#     "1/h" set to "0/h": new rate limit set successfully
#     3 more: 4 of 8 tasks run
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q celery==5.7.0
"$folder/venv/bin/python" >"$folder/seen" 2>/dev/null <<'PYTHON'
import time
from collections import Counter

from celery import Celery
from celery.contrib.testing.worker import start_worker

app = Celery("app", broker="memory://", backend="cache+memory://")
app.conf.worker_prefetch_multiplier = 0
runs = Counter()


def limited(name, limit):
    @app.task(name=name, rate_limit=limit)
    def task():
        runs[name] += 1

    return task


hourly, zero, last = limited("hourly", "1/h"), limited("zero", "0/h"), limited("last", None)


def reach(name, count):
    deadline = time.monotonic() + 60
    while runs[name] < count and time.monotonic() < deadline:
        time.sleep(0.1)


with start_worker(app, perform_ping_check=False, pool="solo"):
    for task in [hourly] * 5 + [zero] * 5:
        task.delay()
    last.delay().get(timeout=60)
    reach("zero", 5)
    print(f'rate_limit="1/h"  {runs["hourly"]} of 5 tasks run')
    print(f'rate_limit="0/h"  {runs["zero"]} of 5 tasks run')
    ((answer,),) = (reply.values() for reply in app.control.rate_limit("hourly", "0/h", reply=True, timeout=10))
    print(f'"1/h" set to "0/h": {answer["ok"]}')
    for _ in range(3):
        hourly.delay()
    last.delay().get(timeout=60)
    reach("hourly", 4)
    print(f"3 more: {runs['hourly']} of 8 tasks run")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
rate_limit="1/h"  1 of 5 tasks run
rate_limit="0/h"  5 of 5 tasks run
"1/h" set to "0/h": new rate limit set successfully
3 more: 4 of 8 tasks run
SEEN
