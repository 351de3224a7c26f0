"""The functions of one request: their schemas, and the check of a call."""

from __future__ import annotations

import json
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from jsonschema import Draft4Validator, Draft7Validator, Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError, best_match
from jsonschema.validators import extend, validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from tasks.errors import InvalidRequest
from tasks.messages.depth import MAX_DEPTH, exceeds
from tasks.messages.encoding import to_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.engine.tools.region import Call
    from tasks.messages.tools import Tools

_PATTERNS = ("pattern", "patternProperties")


def _additional(validator: Any, value: Any, instance: Any, schema: dict[str, Any]) -> Iterator[Any]:
    """``additionalProperties``, unless it would have to look for patterns in names."""
    if "patternProperties" not in schema:
        yield from Draft202012Validator.VALIDATORS["additionalProperties"](validator, value, instance, schema)


def _multiple(validator: Any, factor: Any, instance: Any, schema: dict[str, Any]) -> Iterator[Any]:
    """``multipleOf`` of decimal numbers: as binary fractions, 19.99 is no multiple of 0.01."""
    if not validator.is_type(instance, "number"):
        return
    try:
        fits = Fraction(str(instance)) % Fraction(str(factor)) == 0
    except ValueError:  # JSON's 1e999 is infinite in Python
        fits = False
    if not fits:
        yield ValidationError(f"{instance!r} is not a multiple of {factor!r}")


#: Dialects, the first of which that a schema is written in is its own, where it does not say.
_DIALECTS = (Draft202012Validator, Draft7Validator, Draft4Validator)


@lru_cache(maxsize=8)
def _without_patterns(dialect: Any) -> Any:
    """A dialect whose regular expressions are not tried: Python's may take for ever, on the thread that decodes for everybody."""
    known = [name for name in (*_PATTERNS, "unevaluatedProperties") if name in dialect.VALIDATORS]
    ours = {"additionalProperties": _additional, "multipleOf": _multiple}
    return extend(dialect, {**dict.fromkeys(known, lambda *_: ()), **ours})  # type: ignore[no-untyped-call]


@lru_cache(maxsize=256)
def _validator(schema: str) -> Any:
    """The validator of a schema, which is checked: that takes milliseconds, and an agent sends the same ones again and again."""
    described = json.loads(schema)
    dialect = validator_for(described, _dialect(described))
    dialect.check_schema(described)
    # An empty registry: jsonschema's own fetches what a reference names from the network.
    return _without_patterns(dialect)(described, registry=Registry())


def _dialect(described: Any) -> Any:
    """The dialect of a schema that names none."""
    for dialect in _DIALECTS:
        try:
            dialect.check_schema(described)
        except SchemaError:
            continue
        return dialect
    return Draft202012Validator


class Functions:
    """The functions that a model may call.

    Args:
        tools: as the request has them.

    Raises:
        InvalidRequest: the parameters of a function are no JSON Schema.
    """

    def __init__(self, tools: Tools) -> None:
        self.tools = tools
        self.schemas = {function.name: function.parameters for function in tools.functions}
        self._texts = {name: to_json(schema) for name, schema in self.schemas.items()}
        for number, function in enumerate(tools.functions):
            try:
                _validator(self._texts[function.name])
            except (SchemaError, RecursionError) as error:
                reason = error.message if isinstance(error, SchemaError) else "it is nested too deeply"
                raise InvalidRequest(
                    f"tools[{number}].function.parameters of {function.name!r}: are no JSON Schema: {reason:.300}"
                ) from None

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The functions that may be called now."""
        return tuple(self.schemas) if self.tools.only is None else (self.tools.only,)

    def problem(self, call: Call) -> str:
        """Say what is wrong with a call; empty where nothing is."""
        if call.name not in self.schemas:
            return f"it has no function {call.name!r:.80}"
        if call.name not in self.names:
            return f"tool_choice asks for {self.tools.only!r}, and not for {call.name!r}"
        try:
            arguments = json.loads(call.arguments, parse_constant=_refuse)
        except (ValueError, RecursionError):
            return f"the arguments of {call.name!r} are no JSON"
        if not isinstance(arguments, dict):
            return f"the arguments of {call.name!r} are no object"
        if exceeds(arguments, MAX_DEPTH):
            return f"the arguments of {call.name!r} are nested more than {MAX_DEPTH} levels deep"
        return self._mismatch(call.name, arguments)

    def fits(self, name: str, argument: str, value: Any) -> bool:
        """Whether a value is one of this argument's; ``True`` where the schema has no type for it."""
        schema = self.schemas.get(name, {})
        described = schema.get("properties", {}).get(argument)
        if described is None:
            return True
        try:
            validator = _validator(self._texts[name])
            return bool(validator.evolve(schema=described).is_valid(value))
        except (Unresolvable, RecursionError):
            return True

    def _mismatch(self, name: str, arguments: dict[str, Any]) -> str:
        try:
            error = best_match(_validator(self._texts[name]).iter_errors(arguments))
        except (Unresolvable, RecursionError):
            return f"the schema of {name!r} has a reference that leads nowhere, or in a circle"
        if error is None:
            return ""
        # Not the error's own text, which has the value in it: warnings are in logs and results, values may be long.
        where = "".join(f"[{part!r}]" for part in error.absolute_path) or "they"
        missing = (
            [key for key in error.validator_value if key not in error.instance] if error.validator == "required" else []
        )
        about = f"required {', '.join(map(repr, missing))} is missing" if missing else f"{error.validator} is not met"
        return f"the arguments of {name!r} do not match its schema: {where}: {about}"


def _refuse(name: str) -> Any:
    raise ValueError(name)
