"""The structure that a producer asks of an answer: checked for shape, size and dialect, without a grammar engine."""

from __future__ import annotations

import json
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, field_validator, model_validator
from pydantic_core import PydanticCustomError

from tasks.client.answers.answer_schema import narrowed
from tasks.client.answers.answer_type import is_type, name_of, schema_of
from tasks.client.request.fields import finite, size_bytes
from tasks.client.request.schema_form import fault_of_form, without_nulls
from tasks.errors import InvalidRequest
from tasks.messages.constraint import Constraint
from tasks.messages.encoding import to_compact_json

if TYPE_CHECKING:
    from collections.abc import Mapping

#: A grammar of more takes seconds to compile, and says no more than a smaller one.
MAX_CONSTRAINT_BYTES = 256 * 1024
MAX_CHOICE_TEXTS = 4096
FORMAT_HINT = (
    'use a pydantic model, {"type": "json_object"}, or {"type": "json_schema", "json_schema": {"name": …, "schema": …}}'
)
#: The dialects that a worker reads, by their ``$schema`` without the scheme and the last ``#``.
DIALECTS = frozenset(
    {f"json-schema.org/draft-0{number}/schema" for number in (4, 6, 7)}
    | {f"json-schema.org/draft/{year}/schema" for year in ("2019-09", "2020-12")}
)
#: The fields of a request, of which one at most bounds an answer.
FIELDS = ("response_format", "regex", "choice", "grammar")


class JsonSchemaFormat(BaseModel):
    """OpenAI's object: ``schema`` is any JSON Schema; ``name`` and ``description`` are for people."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = ""
    description: str = ""
    schema_: Annotated[Any, Field(alias="schema")]
    strict: StrictBool = True

    @field_validator("strict", mode="before")
    @classmethod
    def _none_is_strict(cls, value: Any) -> Any:
        return True if value is None else value

    @field_validator("name", "description", mode="before")
    @classmethod
    def _none_is_no_text(cls, value: Any) -> Any:
        return "" if value is None else value

    @field_validator("schema_")
    @classmethod
    def _is_a_schema(cls, value: Any) -> Any:
        if not isinstance(value, dict | bool):
            raise PydanticCustomError(
                "schema", "a schema is an object; send what Model.model_json_schema() gives, or the model itself"
            )
        dialect = value.get("$schema") if isinstance(value, dict) else None
        if dialect is not None and (
            not isinstance(dialect, str) or dialect.removesuffix("#").partition("://")[2] not in DIALECTS
        ):
            raise PydanticCustomError(
                "schema", f"$schema={dialect!r:.100} is not a known dialect; use draft 4, 6, 7, 2019-09 or 2020-12"
            )
        value = without_nulls(value)
        if fault := fault_of_form(value):
            raise PydanticCustomError("schema", f"is no JSON Schema: {fault}")
        _bounded(value, "schema")
        return value


class ResponseFormat(BaseModel):
    """OpenAI's ``response_format``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> ResponseFormat:
        if (self.json_schema is None) == (self.type == "json_schema"):
            problem = "has no json_schema" if self.json_schema is None else f"of type {self.type!r} has a json_schema"
            raise PydanticCustomError(
                "schema", f'{problem}; send {{"type": "json_schema", "json_schema": {{"name": …, "schema": …}}}}'
            )
        return self


def check_choice(choices: list[str]) -> list[str]:
    """The choices, which are told apart by their text."""
    if len(choices) > MAX_CHOICE_TEXTS:
        raise PydanticCustomError("choice", f"{len(choices)} texts are too many; give at most {MAX_CHOICE_TEXTS}")
    if not all(choices) or len(set(choices)) != len(choices):
        raise PydanticCustomError("choice", "a text is empty or given twice; give different texts")
    _bounded(choices, "choice")
    return choices


def check_grammar(grammar: str) -> str:
    """The grammar, unless it is one of llama.cpp's."""
    if "::=" in grammar:
        raise PydanticCustomError("grammar", "this is GBNF; write it in Lark's notation, with the rule start: …")
    return check_text(grammar)


def check_text(text: str) -> str:
    """A regular expression or a grammar of bounded size."""
    if not text:
        raise PydanticCustomError("size", "it is empty; give one, or leave it out")
    _bounded(text, "text")
    return text


def _bounded(value: Any, about: str) -> None:
    size = size_bytes(value, f"the {about}")
    if size > MAX_CONSTRAINT_BYTES:
        raise PydanticCustomError(
            "size", f"the {about} has {size} bytes; the limit is {MAX_CONSTRAINT_BYTES}: send less"
        )


def as_response_format(value: Any) -> Any:
    """A type, such as a pydantic model, as a ``response_format``; anything else as it is.

    Of what the type's author did not say, an answer gets nothing: objects have no other properties.

    Raises:
        InvalidRequest: no schema says what the type is, or the value is an instance of a model.
    """
    if is_type(value):
        schema = narrowed(schema_of(value))
        return {"type": "json_schema", "json_schema": {"name": name_of(value), "schema": schema, "strict": True}}
    is_model = hasattr(type(value), "model_json_schema") and not hasattr(
        value, "type"
    )  # OpenAI's own models have a type
    if is_model or is_dataclass(value):
        raise InvalidRequest(f"response_format is an instance of {type(value).__name__}: give the class")
    return value


def constraint_of(given: Mapping[str, Any]) -> Constraint | None:
    """The constraint of an answer, by the checked fields of a request; ``None`` where there is none."""
    form: ResponseFormat | None = given["response_format"]
    if form is not None and form.type == "json_object":
        return Constraint(kind="json_object")
    if form is not None and form.json_schema is not None:
        schema = form.json_schema
        return Constraint(kind="json_schema", value=to_compact_json(schema.schema_), strict=schema.strict)
    if given["regex"] is not None:
        return Constraint(kind="regex", value=given["regex"])
    if given["choice"] is not None:
        return Constraint(kind="choice", value=to_compact_json(given["choice"]))
    if given["grammar"] is not None:
        return Constraint(kind="lark", value=given["grammar"])
    return None


def parsed(text: str, finish_reason: str) -> Any:
    """The value that a whole JSON answer says; ``None`` where it was cut off, or has a number that no float is."""
    if finish_reason != "stop":
        return None
    try:
        return json.loads(text, parse_float=finite)
    except (ValueError, RecursionError):  # a stop string ended it, or it is nested too deeply to be read
        return None
