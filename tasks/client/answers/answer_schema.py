"""The JSON Schema of a Python type, so narrow that what is valid by it is a value of the type.

pydantic's own says less than the type does in a few places: a ``Decimal`` is any text, a URL has any scheme.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic.json_schema import GenerateJsonSchema

_DAYS = "(0[1-9]|[12][0-9]"
#: A date and time without a zone, with days that its month may have.
NAIVE = (
    rf"^[12][0-9]{{3}}-((0[13578]|1[02])-{_DAYS}|3[01])|(0[469]|11)-{_DAYS}|30)|02-{_DAYS}))"
    r"T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?$"
)


def narrowed(schema: Any) -> Any:
    """The schema with what pydantic does and JSON Schema does not say.

    An object that names properties, or patterns of them, has no others, unless it says what these may be. A set is read from any
    list. What tells alternatives apart is there.
    """
    closed = _closed(schema)
    if isinstance(closed, dict):
        for definition, tag in _tagged(closed):
            described = closed.get("$defs", {}).get(definition)
            if isinstance(described, dict) and tag in described.get("properties", {}):
                required = described.get("required", [])
                described["required"] = required if tag in required else [*required, tag]
    return closed


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(value) for name, value in schema.items()}
    for name in ("$defs", "properties"):  # whose keys are anybody's names
        if isinstance(schema.get(name), dict):
            closed[name] = {key: _closed(inner) for key, inner in schema[name].items()}
    for name in ("const", "default", "enum", "examples"):
        if name in schema:
            closed[name] = schema[name]
    if schema.get("type") == "object" and ("properties" in schema or "patternProperties" in schema):
        closed.setdefault("additionalProperties", False)
    if schema.get("type") == "array":
        closed.pop("uniqueItems", None)
    return closed


def _tagged(schema: Any) -> list[tuple[str, str]]:
    """The definitions that a discriminator chooses from, each with the property by which it does."""
    if isinstance(schema, list):
        return [found for part in schema for found in _tagged(part)]
    if not isinstance(schema, dict):
        return []
    found = [found for part in schema.values() for found in _tagged(part)]
    discriminator = schema.get("discriminator")
    if (
        isinstance(discriminator, dict)
        and isinstance(discriminator.get("mapping"), dict)
        and isinstance(discriminator.get("propertyName"), str)
    ):
        found += [
            (str(reference).removeprefix("#/$defs/"), discriminator["propertyName"])
            for reference in discriminator["mapping"].values()
        ]
    return found


@cache
def generator() -> type[GenerateJsonSchema]:
    """pydantic's generator, which says more; made at first use, since importing pydantic's takes a while."""
    from pydantic.json_schema import GenerateJsonSchema

    class Narrow(GenerateJsonSchema):
        """A ``Decimal`` is a number, or a text of its digits; a URL has its scheme; keys that are integers look like ones.

        A date and time without a zone has none, where JSON Schema's format needs one.
        """

        def decimal_schema(self, schema: Any) -> Any:
            places, digits = schema.get("decimal_places"), schema.get("max_digits")
            if places is None or digits is None or digits < places:
                bounds: Any = {name: float(schema[name]) for name in ("ge", "gt", "le", "lt") if name in schema}
                return self.float_schema(bounds | {"type": "float"}) | (
                    {} if places is None else {"multipleOf": 10**-places}
                )
            whole = f"(0|[1-9][0-9]{{0,{digits - places - 1}}})" if digits != places else "0"
            sign = "" if max(schema.get("ge", -1), schema.get("gt", -1)) >= 0 else "-?"
            fraction = rf"(\.[0-9]{{1,{places}}})?" if places else ""
            return {"type": "string", "pattern": f"^{sign}{whole}{fraction}$"}

        def datetime_schema(self, schema: Any) -> Any:
            described = super().datetime_schema(schema)
            if schema.get("tz_constraint") == "naive":
                return {"type": "string", "pattern": NAIVE}
            return described

        def url_schema(self, schema: Any) -> Any:
            described = super().url_schema(schema)
            if schemes := schema.get("allowed_schemes"):
                described["pattern"] = f"^({'|'.join(schemes)})://[A-Za-z0-9]"
            return described

        def dict_schema(self, schema: Any) -> Any:
            described = super().dict_schema(schema)
            if schema.get("keys_schema", {}).get("type") == "int" and "patternProperties" not in described:
                values = described.pop("additionalProperties", True)
                described |= {"patternProperties": {"^-?(0|[1-9][0-9]{0,17})$": values}, "additionalProperties": False}
            return described

    return Narrow
