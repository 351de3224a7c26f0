#!/usr/bin/env bash
# celery 5.7.0 (Python 3.11): revoke(..., terminate=True) with a signal that does not exist answers with an error, and has revoked the task.
#
# Guess: a command to a worker that is answered with an error has changed nothing: the name of the signal is looked up first.
# Seen: the id goes into the worker's list of revoked tasks, and only then is the signal's name read. Who reads "error", and leaves the task to run, finds
# it revoked:
#     control.revoke("order-7", terminate=True, signal="SIGSTOPP"): error
#     order-7: TaskRevokedError
#     order-8: done
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


@app.task
def order():
    return "done"


with start_worker(app, perform_ping_check=False, pool="solo"):
    order.delay().get(timeout=60)
    ((answer,),) = (reply.values() for reply in app.control.revoke("order-7", terminate=True, signal="SIGSTOPP", reply=True, timeout=10))
    print('control.revoke("order-7", terminate=True, signal="SIGSTOPP"):', *answer)
    for name in ("order-7", "order-8"):
        try:
            outcome = order.apply_async(task_id=name).get(timeout=60)
        except Exception as error:
            outcome = type(error).__name__
        print(f"{name}: {outcome}")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
control.revoke("order-7", terminate=True, signal="SIGSTOPP"): error
order-7: TaskRevokedError
order-8: done
SEEN
