#!/usr/bin/env bash
# celery 5.7.0 (Python 3.11): control.time_limit(task, soft=30) takes the task's hard limit away.
#
# Guess: the limit that is named changes, and the other one stays: both are optional arguments, and a running worker is told what is new.
# Seen: both are set, and what is left out is None. The task that was killed after 120 seconds, whatever it did, is now only asked to stop, which code that
# catches Exception ignores. The answer is "time limits set successfully", for a call without any limit too:
#     at first                           soft 60, hard 120
#     time_limit(task, soft=30)          soft 30, hard None
#     time_limit(task, hard=90)          soft None, hard 90
#     time_limit(task)                   soft None, hard None
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q celery==5.7.0
"$folder/venv/bin/python" >"$folder/seen" 2>/dev/null <<'PYTHON'
from celery import Celery
from celery.contrib.testing.worker import start_worker

app = Celery("app", broker="memory://", backend="cache+memory://")


@app.task(name="compute", soft_time_limit=60, time_limit=120)
def compute():
    return None


def show(label):
    print(f"{label:34} soft {compute.soft_time_limit}, hard {compute.time_limit}")


with start_worker(app, perform_ping_check=False, pool="solo"):
    compute.delay().get(timeout=60)
    show("at first")
    for label, limits in (("soft=30", {"soft": 30}), ("hard=90", {"hard": 90}), ("", {})):
        ((answer,),) = (reply.values() for reply in app.control.time_limit("compute", **limits, reply=True, limit=1, timeout=20))
        assert answer == {"ok": "time limits set successfully"}, answer
        show(f"time_limit(task{', ' if label else ''}{label})")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
at first                           soft 60, hard 120
time_limit(task, soft=30)          soft 30, hard None
time_limit(task, hard=90)          soft None, hard 90
time_limit(task)                   soft None, hard None
SEEN
