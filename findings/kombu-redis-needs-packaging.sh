#!/usr/bin/env bash
# celery 5.7.0, kombu 5.7.0, redis 8.1.0 (Python 3.11): an application on Redis that has celery and redis installed cannot connect.
#
# Guess: `pip install celery redis` is all that a Redis broker takes; the extra celery[redis] only names a version of redis.
# Seen: kombu/transport/redis.py imports packaging, which is a requirement of kombu's extra "redis" and of nothing else there. It goes
# unnoticed where another package brings it (pytest, transformers, gunicorn), so a development environment works and a slim image does not.
#     celery redis      ModuleNotFoundError: No module named 'packaging'
#     celery[redis]     <class 'kombu.transport.redis.Transport'>
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
program='from celery import Celery; Celery(broker="redis://127.0.0.1/0").connection_for_write()
from kombu.transport import get_transport_cls; print(get_transport_cls("redis"))'
python3 -m venv "$folder/plain"
"$folder/plain/bin/pip" install -q celery==5.7.0 kombu==5.7.0 redis==8.1.0
"$folder/plain/bin/python" -c "$program" >"$folder/seen" 2>&1 || true
tail -n 1 "$folder/seen"
grep -q "^ModuleNotFoundError: No module named 'packaging'$" "$folder/seen"
"$folder/plain/bin/pip" install -q 'celery[redis]==5.7.0' kombu==5.7.0
"$folder/plain/bin/python" -c "$program" >"$folder/seen" 2>&1
tail -n 1 "$folder/seen"
grep -q "kombu.transport.redis.Transport" "$folder/seen"
