#!/usr/bin/env bash
# celery 5.7.0, httpx 0.28.1 (Python 3.11): a task's JSONDecodeError is no ValueError for whoever waits for it.
#
# Guess: result.get() raises the exception that the task raised, or one of its base classes where it cannot be copied: an `except
# ValueError` that works around the function works around the task. JSONDecodeError, which pickle copies, is an easy case.
# Seen: it is the other way round. What pickle cannot copy arrives as its nearest base (httpx.HTTPStatusError as HTTPError). What it can
# copy is stored as the name of its class and its `args`, in JSON, and called again with these; where the class wants other arguments, as
# the standard library's JSONDecodeError and ExceptionGroup do, a plain Exception arrives:
#     ValueError      -> ValueError  ValueError: True
#     HTTPStatusError -> HTTPError   HTTPError: True
#     JSONDecodeError -> Exception   ValueError: False
#     ExceptionGroup  -> Exception   ExceptionGroup: False
# Tasks that read answers of a model as JSON raise just that one.
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q celery==5.7.0 kombu==5.7.0 httpx==0.28.1
"$folder/venv/bin/python" >"$folder/seen" 2>/dev/null <<'PYTHON'
import json

import httpx
from celery import Celery
from celery.contrib.testing.worker import start_worker

app = Celery("app", broker="memory://", backend="cache+memory://")


@app.task
def fail(kind):
    if kind == "ValueError":
        raise ValueError("no number")
    if kind == "JSONDecodeError":
        json.loads('{"answer": ')
    if kind == "ExceptionGroup":
        raise ExceptionGroup("two", [ValueError(1), ValueError(2)])
    httpx.Response(429, request=httpx.Request("GET", "http://host/")).raise_for_status()


with start_worker(app, pool="solo", perform_ping_check=False):
    for name, caught in (
        ("ValueError", ValueError),
        ("HTTPStatusError", httpx.HTTPError),
        ("JSONDecodeError", ValueError),
        ("ExceptionGroup", ExceptionGroup),
    ):
        try:
            fail.delay(name).get(timeout=30)
        except Exception as error:
            print(f"{name:15} -> {type(error).__name__:11} {caught.__name__}: {isinstance(error, caught)}")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
ValueError      -> ValueError  ValueError: True
HTTPStatusError -> HTTPError   HTTPError: True
JSONDecodeError -> Exception   ValueError: False
ExceptionGroup  -> Exception   ExceptionGroup: False
SEEN
