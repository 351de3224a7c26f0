#!/usr/bin/env bash
# lm-format-enforcer 0.11.3, pydantic 2.14.3 (Python 3.11): a union with a discriminator allows any object, and nothing but an object.
#
# Guess: a discriminator makes a union stricter, if anything: the schema says oneOf for it where it says anyOf for the plain union, and an object has one kind
# or the other. A keyword that the library does not know raises an error, as "not" does.
# Seen: oneOf is left out without a word, and what remains is taken for an object with any fields. The same models without the discriminator are
# held to. What is no object at all cannot be written, so a field that is a number or a boolean becomes an object:
#     Union[Cat, Dog]                 a Cat True, a Dog True, a mixture False, {"x": [null]} False
#     the same with a discriminator   a Cat True, a Dog True, a mixture True, {"x": [null]} True
#     oneOf integer, boolean          5 False, true False, {"x": [null]} True
#     not integer                     Exception
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q lm-format-enforcer==0.11.3 pydantic==2.14.3
"$folder/venv/bin/python" >"$folder/seen" 2>/dev/null <<'PYTHON'
from typing import Annotated, Literal

from lmformatenforcer import JsonSchemaParser
from pydantic import BaseModel, Field, TypeAdapter


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    tricks: list[str]


def allows(schema, text):
    """Whether a model that is held to the schema can write the text, and end there."""
    parser = JsonSchemaParser(schema)
    for character in text:
        if character not in parser.get_allowed_characters():
            return False
        parser = parser.add_character(character)
    return parser.can_end()


ANY = {'{"x": [null]}': '{"x": [null]}'}
PETS = {
    "a Cat": '{"kind": "cat", "lives": 9}',
    "a Dog": '{"kind": "dog", "tricks": ["sit"]}',
    "a mixture": '{"kind": "cat", "tricks": ["sit"]}',
} | ANY
for label, schema, texts in (
    ("Union[Cat, Dog]", TypeAdapter(Cat | Dog).json_schema(), PETS),
    ("the same with a discriminator", TypeAdapter(Annotated[Cat | Dog, Field(discriminator="kind")]).json_schema(), PETS),
    ("oneOf integer, boolean", {"oneOf": [{"type": "integer"}, {"type": "boolean"}]}, {"5": "5", "true": "true"} | ANY),
):
    print(f"{label:31}", ", ".join(f"{name} {allows(schema, text)}" for name, text in texts.items()))
try:
    JsonSchemaParser({"not": {"type": "integer"}})
except Exception as error:
    print(f"{'not integer':31}", type(error).__name__)
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
Union[Cat, Dog]                 a Cat True, a Dog True, a mixture False, {"x": [null]} False
the same with a discriminator   a Cat True, a Dog True, a mixture True, {"x": [null]} True
oneOf integer, boolean          5 False, true False, {"x": [null]} True
not integer                     Exception
SEEN
