#!/usr/bin/env bash
# pydantic 2.14.3 (Python 3.11): a Decimal that is read from a JSON number has been a float.
#
# Guess: pydantic reads JSON with a parser of its own, so a field of the type Decimal gets the digits that the JSON text has, as
# json.loads(parse_float=Decimal) gives them. That is what the type is for.
# Seen: the number becomes a float first, and the Decimal is made of that one's shortest text. Up to 15 digits it looks right. Above, digits are
# replaced by others, and a check of decimal_places or of a maximum is of the number that it became; the same digits in quotes are kept:
#     1.10                      Decimal('1.1')
#     0.1234567890123456789     Decimal('0.12345678901234568')
#     12345678901234567890.123  Decimal('12345678901234567000')
#     "0.1234567890123456789"   Decimal('0.1234567890123456789')
#     int 12345678901234567890  12345678901234567890
# Nothing warns, in strict mode neither. Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pydantic==2.14.3
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
from decimal import Decimal

from pydantic import TypeAdapter

amount = TypeAdapter(Decimal)
for text in ("1.10", "0.1234567890123456789", "12345678901234567890.123", '"0.1234567890123456789"'):
    assert amount.validate_json(text) == amount.validate_json(text, strict=True)
    print(f"{text:25} {amount.validate_json(text)!r}")
print(f"{'int 12345678901234567890':25} {TypeAdapter(int).validate_json('12345678901234567890')!r}")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
1.10                      Decimal('1.1')
0.1234567890123456789     Decimal('0.12345678901234568')
12345678901234567890.123  Decimal('12345678901234567000')
"0.1234567890123456789"   Decimal('0.1234567890123456789')
int 12345678901234567890  12345678901234567890
SEEN
