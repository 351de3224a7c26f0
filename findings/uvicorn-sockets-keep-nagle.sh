#!/usr/bin/env bash
# uvicorn 0.54.0 (Linux, Python 3.11): on a socket that it is given, or that it binds itself for --workers and --reload, small writes wait.
#
# Guess: asyncio sets TCP_NODELAY on every TCP connection, so each event of a stream goes out at once, however the server listens.
# Seen: asyncio does so where a socket's `proto` is IPPROTO_TCP. uvicorn's own Config.bind_socket(), and socket.create_server(), make
# sockets whose proto is 0, which stay under Nagle's algorithm: an event waits for the acknowledgement of the one before, 40 ms.
#     host and port          nodelay 1
#     Config.bind_socket()   nodelay 0
#     create_server()        nodelay 0
#     proto=IPPROTO_TCP      nodelay 1
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q uvicorn==0.54.0
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
import asyncio
import socket

import uvicorn


async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def nodelay(sockets):
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan="off")
    if sockets == "bind_socket":
        sockets = [config.bind_socket()]
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=sockets))
    while not server.started:
        await asyncio.sleep(0.01)
    port = (sockets or server.servers[0].sockets)[0].getsockname()[1]
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    while not server.server_state.connections:
        await asyncio.sleep(0.01)
    (connection,) = server.server_state.connections
    found = connection.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    writer.close()
    server.should_exit = True
    await serving
    return int(found != 0)


def with_proto():
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    made.bind(("127.0.0.1", 0))
    made.listen()
    return made


print("host and port          nodelay", asyncio.run(nodelay(None)))
print("Config.bind_socket()   nodelay", asyncio.run(nodelay("bind_socket")))
print("create_server()        nodelay", asyncio.run(nodelay([socket.create_server(("127.0.0.1", 0))])))
print("proto=IPPROTO_TCP      nodelay", asyncio.run(nodelay([with_proto()])))
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
host and port          nodelay 1
Config.bind_socket()   nodelay 0
create_server()        nodelay 0
proto=IPPROTO_TCP      nodelay 1
SEEN
