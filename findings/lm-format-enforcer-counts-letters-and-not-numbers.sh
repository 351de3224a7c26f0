#!/usr/bin/env bash
# lm-format-enforcer 0.11.3, pydantic 2.14.3 (Python 3.11): a rating from 1 to 10 may be -99, and a text of three characters may not have four.
#
# Guess: the bounds that pydantic writes into a schema are upheld, or refused where the library has no means for them. A bound on a text or a list
# is harder than one on a number, so whoever finds that those hold relies on these.
# Seen: the length of a text, its pattern and the number of items hold. The bounds of a number, its multiples and the names of a dictionary's keys are
# left out without a word, as are formats, and each answer has the right type, so that only a validator behind it shows it:
#                            text         valid    allowed  text       valid    allowed
#     str, max_length=3      "abc"        True     True     "abcd"     False    False
#     str, pattern ^[a-z]+$  "abc"        True     True     "123"      False    False
#     list, max_length=1     [1]          True     True     [1, 2]     False    False
#     int, ge=1, le=10       7            True     True     -99        False    True
#     float, gt=0            0.5          True     True     -1.5       False    True
#     int, multiple_of=5     10           True     True     7          False    True
#     dict, keys "a" or "b"  {"a": 1}     True     True     {"c": 1}   False    True
#     date                   "2026-01-31" True     True     "soon"     False    True
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q lm-format-enforcer==0.11.3 pydantic==2.14.3
"$folder/venv/bin/python" >"$folder/seen" 2>/dev/null <<'PYTHON'
import datetime
from typing import Annotated, Literal

from lmformatenforcer import JsonSchemaParser
from pydantic import Field, TypeAdapter, ValidationError


def allows(schema, text):
    """Whether a model that is held to the schema can write the text, and end there."""
    parser = JsonSchemaParser(schema)
    for character in text:
        if character not in parser.get_allowed_characters():
            return False
        parser = parser.add_character(character)
    return parser.can_end()


def valid(adapter, text):
    try:
        adapter.validate_json(text)
    except ValidationError:
        return False
    return True


print(f"{'':22} {'text':12} valid    allowed  {'text':10} valid    allowed")
for label, kind, good, bad in (
    ("str, max_length=3", Annotated[str, Field(max_length=3)], '"abc"', '"abcd"'),
    ("str, pattern ^[a-z]+$", Annotated[str, Field(pattern="^[a-z]+$")], '"abc"', '"123"'),
    ("list, max_length=1", Annotated[list[int], Field(max_length=1)], "[1]", "[1, 2]"),
    ("int, ge=1, le=10", Annotated[int, Field(ge=1, le=10)], "7", "-99"),
    ("float, gt=0", Annotated[float, Field(gt=0)], "0.5", "-1.5"),
    ("int, multiple_of=5", Annotated[int, Field(multiple_of=5)], "10", "7"),
    ('dict, keys "a" or "b"', dict[Literal["a", "b"], int], '{"a": 1}', '{"c": 1}'),
    ("date", datetime.date, '"2026-01-31"', '"soon"'),
):
    adapter = TypeAdapter(kind)
    schema = adapter.json_schema()
    print(f"{label:22} {good:12} {valid(adapter, good)!s:8} {allows(schema, good)!s:8} {bad:10} {valid(adapter, bad)!s:8} {allows(schema, bad)}")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
                       text         valid    allowed  text       valid    allowed
str, max_length=3      "abc"        True     True     "abcd"     False    False
str, pattern ^[a-z]+$  "abc"        True     True     "123"      False    False
list, max_length=1     [1]          True     True     [1, 2]     False    False
int, ge=1, le=10       7            True     True     -99        False    True
float, gt=0            0.5          True     True     -1.5       False    True
int, multiple_of=5     10           True     True     7          False    True
dict, keys "a" or "b"  {"a": 1}     True     True     {"c": 1}   False    True
date                   "2026-01-31" True     True     "soon"     False    True
SEEN
