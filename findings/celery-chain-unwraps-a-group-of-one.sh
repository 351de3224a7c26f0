#!/usr/bin/env bash
# celery 5.7.0 (Python 3.11): the step behind a group of one gets a list, or a bare value, depending on how the chain is written.
#
# Guess: chain(group(tasks), total.s()) and group(tasks) | total.s() are two ways to write one thing: `total` gets the list of results,
# also where the list of tasks happens to have one element.
# Seen: chain(...) replaces a group of one task by that task, so `total` gets the result itself; the operator makes a chord, and
# `total` gets a list. With a number the step fails; with a text, len() counts its characters, and sorted() or join() works on them:
#     chain(group of 2, total)  ['one', 'two']
#     group of 2 | total        ['one', 'two']
#     chain(group of 1, total)  'one'
#     group of 1 | total        ['one']
# A fan-out over a list that a user gives works in each test with two. Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q celery==5.7.0
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
from celery import Celery, chain, group
from celery.contrib.testing.worker import start_worker

app = Celery("app", broker="memory://", backend="cache+memory://")


@app.task
def same(text):
    return text


@app.task
def total(results):
    return results


with start_worker(app, pool="solo", perform_ping_check=False):
    for texts in (["one", "two"], ["one"]):
        parts = [same.s(text) for text in texts]
        print(f"chain(group of {len(texts)}, total) ", repr(chain(group(parts), total.s()).apply_async().get(timeout=30)))
        print(f"group of {len(texts)} | total       ", repr((group(parts) | total.s()).apply_async().get(timeout=30)))
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
chain(group of 2, total)  ['one', 'two']
group of 2 | total        ['one', 'two']
chain(group of 1, total)  'one'
group of 1 | total        ['one']
SEEN
