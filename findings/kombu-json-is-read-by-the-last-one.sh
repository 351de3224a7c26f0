#!/usr/bin/env bash
# kombu 5.7.0, orjson 3.13.0 (Linux, Python 3.11): a second serializer for JSON changes what "json" reads, and not what it writes.
#
# Guess: register("orjson", ..., content_type="application/json") adds a serializer for those who ask for it by its name. Who sends with "json", as
# Celery does unless it is told otherwise, gets back what was sent, as before.
# Seen: a serializer is a writer by name and a reader by content type, and there is one reader for each type. Messages of "json" are read by the new
# library from then on, which knows nothing of kombu's marks: a task's date, Decimal and bytes arrive as dictionaries. There is no warning, and which
# of two processes sees it depends on which modules they have imported:
#     before           date(2026, 1, 1), Decimal('1.10'), b'a'
#     after register() {'__type__': 'date', ...}, {'__type__': 'decimal', ...}, {'__type__': 'bytes', ...}
#     its own type     date(2026, 1, 1), Decimal('1.10'), b'a'
# A content type of its own (application/x-orjson) leaves "json" alone. Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q kombu==5.7.0 orjson==3.13.0
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
import datetime
from decimal import Decimal

import orjson
from kombu.serialization import dumps, loads, register, unregister


def arrives():
    """What a receiver gets of three arguments that are sent with "json"."""
    content_type, encoding, body = dumps([datetime.date(2026, 1, 1), Decimal("1.10"), b"a"], serializer="json")
    values = loads(body, content_type, encoding)
    return ", ".join(f"{{'__type__': {v['__type__']!r}, ...}}" if isinstance(v, dict) else repr(v).replace("datetime.", "") for v in values)


def add(content_type):
    register("orjson", orjson.dumps, orjson.loads, content_type=content_type, content_encoding="utf-8")


print(f"{'before':16}", arrives())
add("application/x-orjson")
own = arrives()
unregister("orjson")
add("application/json")
print(f"{'after register()':16}", arrives())
print(f"{'its own type':16}", own)
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
before           date(2026, 1, 1), Decimal('1.10'), b'a'
after register() {'__type__': 'date', ...}, {'__type__': 'decimal', ...}, {'__type__': 'bytes', ...}
its own type     date(2026, 1, 1), Decimal('1.10'), b'a'
SEEN
