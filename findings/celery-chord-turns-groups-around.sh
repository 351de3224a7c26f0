#!/usr/bin/env bash
# celery 5.7.0 (Python 3.11): a group in a chord's header hands its results over backwards.
#
# Guess: the body of a chord gets the results in the order of the header, as group(...).get() gives them, whatever the header is made of.
# That the results come in another order than the tasks end in is what `result_chord_ordered`, which is on by default, is for.
# Seen: a group within the header is flattened from its end. The same tasks give one order to whoever waits for the group, and another
# one to a chord's body; the order is the same each time, with Redis for results too, so it does not look like a race:
#     three tasks            group [1, 2, 3]     chord [1, 2, 3]
#     task, group of 2       group [1, 2, 3]     chord [1, 3, 2]
#     group of 3, task       group [1, 2, 3, 4]  chord [3, 2, 1, 4]
#     group of 2, group of 2 group [1, 2, 3, 4]  chord [2, 1, 4, 3]
# zip(inputs, results) in the body gives results to the wrong inputs. Groups that are unpacked into one list (group(*a.tasks, b)) keep their order.
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q celery==5.7.0 kombu==5.7.0
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
from celery import Celery, chord, group
from celery.contrib.testing.worker import start_worker

app = Celery("app", broker="memory://", backend="cache+memory://")


@app.task
def same(number):
    return number


with start_worker(app, pool="solo", perform_ping_check=False):
    for name, header in (
        ("three tasks", [same.s(1), same.s(2), same.s(3)]),
        ("task, group of 2", [same.s(1), group(same.s(2), same.s(3))]),
        ("group of 3, task", [group(same.s(1), same.s(2), same.s(3)), same.s(4)]),
        ("group of 2, group of 2", [group(same.s(1), same.s(2)), group(same.s(3), same.s(4))]),
    ):
        of_group = group(header).apply_async().get(timeout=30)
        of_chord = chord(header, same.s()).apply_async().get(timeout=30)
        print(f"{name:22} group {of_group!s:13} chord {of_chord}")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
three tasks            group [1, 2, 3]     chord [1, 2, 3]
task, group of 2       group [1, 2, 3]     chord [1, 3, 2]
group of 3, task       group [1, 2, 3, 4]  chord [3, 2, 1, 4]
group of 2, group of 2 group [1, 2, 3, 4]  chord [2, 1, 4, 3]
SEEN
