"""The Python type that a request asks for: its JSON Schema, and its values out of answers."""

from __future__ import annotations

from inspect import Parameter, signature
from typing import Any, NewType, get_origin

from tasks.client.answers.answer_digits import exact_json, with_digits
from tasks.client.answers.answer_schema import generator
from tasks.errors import InvalidRequest
from tasks.messages.encoding import to_json


def is_type(value: Any) -> bool:
    """Whether it is a type, and no data: a class, ``list[Ticket]``, ``Ticket | None``, a name for one, or a ``TypeAdapter``."""
    return (
        isinstance(value, type | NewType)
        or get_origin(value) is not None
        or type(value).__name__ in ("TypeAdapter", "TypeAliasType")
    )


def name_of(kind: Any) -> str:
    """The name that people give the type."""
    return kind.__name__ if isinstance(kind, type) and get_origin(kind) is None else repr(kind)


def schema_of(kind: Any) -> Any:
    """The JSON Schema of what pydantic reads as this type.

    Raises:
        InvalidRequest: it has none.
    """
    from pydantic import TypeAdapter  # a quarter of the import's time, and only producers with types need it
    from pydantic.errors import PydanticUserError

    describe = getattr(kind, "model_json_schema", None)
    try:
        if describe is None:
            describe = (kind if _is_adapter(kind) else TypeAdapter(kind)).json_schema
        # A model may have a model_json_schema of its own.
        known = signature(describe).parameters.values()
        takes = any(
            parameter.name == "schema_generator" or parameter.kind is Parameter.VAR_KEYWORD for parameter in known
        )
        return describe(schema_generator=generator()) if takes else describe()
    except (
        PydanticUserError,
        AttributeError,
        NameError,
    ) as error:  # the last two are BaseModel's own, and an unknown name's
        reason = str(error).partition("\n")[0]
        raise InvalidRequest(f"response_format={name_of(kind)}: no JSON Schema says what it is ({reason})") from None


def instance(kind: Any, value: Any, text: str = "") -> Any:
    """The JSON of an answer as a value of this type.

    It is read as JSON, where a date is a text, also by a type that takes no texts from Python.

    Args:
        kind: the type.
        value: the JSON as plain data, with numbers as floats.
        text: the JSON, from which a ``Decimal`` has all its digits.

    Raises:
        pydantic.ValidationError: a validator of the type's own refuses it.
    """
    from pydantic import TypeAdapter

    validate = getattr(kind, "model_validate_json", None)
    if validate is None:
        validate = (kind if _is_adapter(kind) else TypeAdapter(kind)).validate_json
    found = validate(to_json(value))
    exact = exact_json(text)
    return found if exact is None else with_digits(kind, found, lambda: validate(exact))


def _is_adapter(value: Any) -> bool:
    return type(value).__name__ == "TypeAdapter"


def response_model(values: dict[str, Any] | None) -> Any:
    """The type that a request has as its ``response_format``; ``None`` where it has another value there, or none."""
    given = (values or {}).get("response_format")
    return given if given is not None and not isinstance(given, dict) and is_type(given) else None
