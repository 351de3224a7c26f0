#!/usr/bin/env bash
# celery 5.7.0 (Python 3.11): chunks(...).set(queue=...) goes to the default queue.
#
# Guess: set() on a signature gives the options of its messages, for each kind of signature: so it is for a task, a group, a chain,
# a chord and map.
# Seen: chunks build a new group when they are called, and take along what apply_async is given and nothing that set() has stored. Work that was
# meant for a queue of its own lands among everything else, and where no worker listens on the default queue it never runs:
#     task.set(queue="bulk")                   bulk: 1, celery: 0
#     group.set(queue="bulk")                  bulk: 2, celery: 0
#     map.set(queue="bulk")                    bulk: 1, celery: 0
#     chunks.set(queue="bulk")                 bulk: 0, celery: 2
#     chunks.apply_async(queue="bulk")         bulk: 2, celery: 0
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q celery==5.7.0
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
from celery import Celery, group

app = Celery("app", broker="memory://")


@app.task
def add(x, y):
    return x + y


def sent(name):
    count = 0
    with app.connection_for_read() as connection:
        queue = connection.SimpleQueue(name)
        while True:
            try:
                queue.get(block=False).ack()
            except queue.Empty:
                return count
            count += 1


pairs = [(1, 1), (2, 2)]
for label, signature, options in (
    ('task.set(queue="bulk")', add.s(1, 1).set(queue="bulk"), {}),
    ('group.set(queue="bulk")', group(add.s(*pair) for pair in pairs).set(queue="bulk"), {}),
    ('map.set(queue="bulk")', add.map(pairs).set(queue="bulk"), {}),
    ('chunks.set(queue="bulk")', add.chunks(pairs, 1).set(queue="bulk"), {}),
    ('chunks.apply_async(queue="bulk")', add.chunks(pairs, 1), {"queue": "bulk"}),
):
    signature.apply_async(**options)
    print(f"{label:40} bulk: {sent('bulk')}, celery: {sent('celery')}")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
task.set(queue="bulk")                   bulk: 1, celery: 0
group.set(queue="bulk")                  bulk: 2, celery: 0
map.set(queue="bulk")                    bulk: 1, celery: 0
chunks.set(queue="bulk")                 bulk: 0, celery: 2
chunks.apply_async(queue="bulk")         bulk: 2, celery: 0
SEEN
