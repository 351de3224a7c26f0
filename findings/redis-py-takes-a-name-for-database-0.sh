#!/usr/bin/env bash
# redis-py 8.1.0, valkey-py 6.2.0, celery 5.7.0 (Python 3.11): redis://host/cache is database 0, and redis://host/1/2 is database 12.
#
# Guess: the path of a URL names a database by its number, and a path that is no number raises a ValueError, as ?db=cache does and as Celery does with the
# same URL.
# Seen: a path that is no number is left out, so a name, or a placeholder that nobody filled in, means the default database, where other programs keep
# their keys; a FLUSHDB of the "cache" empties them too. Slashes are removed wherever they are, which makes one number of two:
#                       redis-py   valkey-py  Celery's results
#     /3                3          3          3
#     /cache            0          0          ValueError
#     /${DB}            0          0          ValueError
#     /1/2              12         12         ValueError
#     ?db=cache         ValueError ValueError ValueError
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q redis==8.1.0 valkey==6.2.0 "celery[redis]==5.7.0"
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
import redis
import valkey
from celery import Celery

READERS = {
    "redis-py": lambda url: redis.Redis.from_url(url).connection_pool.make_connection().db,
    "valkey-py": lambda url: valkey.Valkey.from_url(url).connection_pool.make_connection().db,
    "Celery's results": lambda url: Celery(backend=url).backend.connparams["db"],
}


def database(read, path):
    try:
        return read(f"redis://localhost{path}")
    except Exception as error:
        return type(error).__name__


print(" " * 17, " ".join(f"{name:10}" for name in READERS).rstrip())
for path in ("/3", "/cache", "/${DB}", "/1/2", "?db=cache"):
    print(f"{path:17}", " ".join(f"{database(read, path)!s:10}" for read in READERS.values()).rstrip())
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
                  redis-py   valkey-py  Celery's results
/3                3          3          3
/cache            0          0          ValueError
/${DB}            0          0          ValueError
/1/2              12         12         ValueError
?db=cache         ValueError ValueError ValueError
SEEN
