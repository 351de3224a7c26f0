#!/usr/bin/env bash
# kombu 5.7.0 (Python 3.11): a dictionary that is sent arrives as a date, or not at all, for the names of its two keys.
#
# Guess: what JSON can hold is the same after dumps and loads. Values that JSON does not have are marked when they are written, and a dictionary that looks
# like a mark is marked itself, or left as it is.
# Seen: dates, decimals and identifiers become {"__type__": ..., "__value__": ...}, and each dictionary with these two keys is read as one. A task that
# is given the JSON of another task's message (a monitor, a second try of what has failed) gets other types than it was sent; a __type__ that
# kombu does not know is a ValueError for the reader:
#     {'__type__': 'date', '__value__': '2026-01-01'} -> datetime.date(2026, 1, 1)
#     {'__type__': 'decimal', '__value__': '1.10'} -> Decimal('1.10')
#     {'__type__': 'City', '__value__': 'Rome'} -> ValueError
#     {'__type__': 'City', 'name': 'Rome'} -> {'__type__': 'City', 'name': 'Rome'}
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q kombu==5.7.0
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
from kombu.utils.json import dumps, loads

for value in (
    {"__type__": "date", "__value__": "2026-01-01"},
    {"__type__": "decimal", "__value__": "1.10"},
    {"__type__": "City", "__value__": "Rome"},
    {"__type__": "City", "name": "Rome"},
):
    try:
        print(value, "->", repr(loads(dumps(value))))
    except ValueError as error:
        print(value, "->", type(error).__name__)
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
{'__type__': 'date', '__value__': '2026-01-01'} -> datetime.date(2026, 1, 1)
{'__type__': 'decimal', '__value__': '1.10'} -> Decimal('1.10')
{'__type__': 'City', '__value__': 'Rome'} -> ValueError
{'__type__': 'City', 'name': 'Rome'} -> {'__type__': 'City', 'name': 'Rome'}
SEEN
