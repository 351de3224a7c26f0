#!/usr/bin/env bash
# lm-format-enforcer 0.11.3 (Python 3.11): a choice with a line end is written as no JSON, and one with a quote ends at the quote.
#
# Guess: a value of an enum or a const is written as JSON writes it, with \n for a line end and \" for a quote: a backslash is written as \\. If one
# of them is not supported, nothing else is written for it.
# Seen: only the backslash is escaped. A line end or a tab goes into the text as it is, and the escaped form is not allowed, so an answer that was held to
# the schema to its end is refused by json.loads. A quote within the value is the end of the text: the choice 'a"b' is written as "a", which is JSON, and
# none of the choices. What may be written for a value, of its JSON, its bare characters between quotes, and the part before its quote:
#                  JSON   bare                   part
#     enum  "a\\b" True   False
#     enum  "a\nb" False  True, JSONDecodeError
#     enum  "a\tb" False  True, JSONDecodeError
#     enum  "a\"b" False  False                  True
#     const "a\nb" False  True, JSONDecodeError
#     const "a\"b" False  False                  True
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q lm-format-enforcer==0.11.3 pydantic==2.14.3
"$folder/venv/bin/python" >"$folder/seen" 2>/dev/null <<'PYTHON'
import json

from lmformatenforcer import JsonSchemaParser


def allows(schema, text):
    """Whether a model that is held to the schema can write the text, and end there."""
    parser = JsonSchemaParser(schema)
    for character in text:
        if character not in parser.get_allowed_characters():
            return False
        parser = parser.add_character(character)
    return parser.can_end()


def seen(schema, text):
    """Whether the schema allows the text, and the error of json.loads, if it is no JSON."""
    if not allows(schema, text):
        return "False"
    try:
        json.loads(text)
    except ValueError as error:
        return f"True, {type(error).__name__}"
    return "True"


print(f"{'':12} {'JSON':6} {'bare':22} part")
for keyword, value in (("enum", "a\\b"), ("enum", "a\nb"), ("enum", "a\tb"), ("enum", 'a"b'), ("const", "a\nb"), ("const", 'a"b')):
    schema = {"enum": [value, "other"]} if keyword == "enum" else {"const": value}
    cells = [seen(schema, json.dumps(value)), seen(schema, f'"{value}"')]
    part = seen(schema, json.dumps(value.split('"')[0])) if '"' in value else ""
    print(f"{keyword:5} {json.dumps(value):6} {cells[0]:6} {cells[1]:22} {part}".rstrip())
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
             JSON   bare                   part
enum  "a\\b" True   False
enum  "a\nb" False  True, JSONDecodeError
enum  "a\tb" False  True, JSONDecodeError
enum  "a\"b" False  False                  True
const "a\nb" False  True, JSONDecodeError
const "a\"b" False  False                  True
SEEN
