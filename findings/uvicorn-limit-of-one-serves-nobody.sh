#!/usr/bin/env bash
# uvicorn 0.54.0 (Linux, Python 3.11): with limit_concurrency=1 no request is ever answered.
#
# Guess: limit_concurrency=N serves N requests at a time, and answers further ones with 503: 1 for a model that computes one answer at a time. A
# connection that waits for its next request costs nothing.
# Seen: a request is refused where N connections are open, and its own is one of them: N lets N - 1 requests through, and 1 none. Connections
# that are idle count, and clients keep theirs (each browser, each pool, each health check), so a server that does nothing refuses:
#     limit_concurrency=1: alone 503
#     limit_concurrency=2: alone 200, beside 1 idle connection 503
#     limit_concurrency=3: alone 200, beside 1 idle connection 200, beside 2 idle connections 503
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q uvicorn==0.54.0
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
import asyncio
import contextlib
import http.client
import socket
import threading

import uvicorn


async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


def status(connection):
    connection.request("GET", "/")
    response = connection.getresponse()
    response.read()
    return response.status


@contextlib.contextmanager
def serving(limit):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, limit_concurrency=limit, lifespan="off", log_level="critical", timeout_keep_alive=600)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join()


for limit in (1, 2, 3):
    with serving(limit) as port, contextlib.ExitStack() as open_ones:
        seen = []
        for idle in range(limit):
            connection = http.client.HTTPConnection("127.0.0.1", port)
            open_ones.callback(connection.close)
            beside = f"beside {idle} idle connection{'s' * (idle > 1)}" if idle else "alone"
            seen.append(f"{beside} {status(connection)}")
        print(f"limit_concurrency={limit}:", ", ".join(seen))
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
limit_concurrency=1: alone 503
limit_concurrency=2: alone 200, beside 1 idle connection 503
limit_concurrency=3: alone 200, beside 1 idle connection 200, beside 2 idle connections 503
SEEN
