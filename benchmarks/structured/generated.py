"""Schemas that are made up, from a seed."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMATS = ("date", "date-time", "time", "email", "ipv4", "uuid")
PATTERNS = ("^[A-Z]{2,4}$", "^[0-9]{3}-[0-9]{2}$", "^(red|green|blue)s?$")
MOST_DEPTH = 3


def generate(seed: int) -> Iterator[dict[str, Any]]:
    """Schemas like those of requests: closed objects of bounded values, some with definitions and alternatives."""
    number = 0
    while True:
        maker = _Maker(random.Random(f"{seed}-{number}"))
        yield maker.whole()
        number += 1


class _Maker:
    def __init__(self, draw: random.Random) -> None:
        self._draw = draw

    def whole(self) -> dict[str, Any]:
        schema = self._object(0)
        schema["$defs"] = {
            "Money": {"type": "object", "properties": {"amount": self._number(), "unit": {"enum": ["EUR", "USD"]}}}
        }
        schema["$defs"]["Money"] |= {"required": ["amount", "unit"], "additionalProperties": False}
        return schema

    def _value(self, depth: int) -> dict[str, Any]:
        kinds = ["text", "number", "enum", "boolean", "nullable", "ref"] + (
            ["object", "array", "union"] if depth < MOST_DEPTH else []
        )
        match self._draw.choice(kinds):
            case "text":
                return self._text()
            case "number":
                return self._number()
            case "enum":
                return {"enum": self._draw.sample(["a", "b", "ä", "日", 1, 2.5, None, True], 3)}
            case "boolean":
                return {"type": "boolean"}
            case "nullable":
                return {"type": ["string", "null"], "maxLength": 8}
            case "ref":
                return {"$ref": "#/$defs/Money"}
            case "object":
                return self._object(depth + 1)
            case "array":
                least = self._draw.randint(0, 2)
                return {"type": "array", "items": self._value(depth + 1), "minItems": least, "maxItems": least + 2}
        return {"anyOf": [self._value(depth + 1), self._value(depth + 1)]}

    def _text(self) -> dict[str, Any]:
        match self._draw.randrange(3):
            case 0:
                return {"type": "string", "format": self._draw.choice(FORMATS)}
            case 1:
                return {"type": "string", "pattern": self._draw.choice(PATTERNS)}
        return {"type": "string", "minLength": self._draw.randint(0, 3), "maxLength": self._draw.randint(4, 16)}

    def _number(self) -> dict[str, Any]:
        least = self._draw.randint(-50, 50)
        kind = self._draw.choice(["integer", "number"])
        return {"type": kind, "minimum": least, "maximum": least + self._draw.randint(1, 5000)}

    def _object(self, depth: int) -> dict[str, Any]:
        names = [f"field_{number}" for number in range(self._draw.randint(1, 4))]
        required = [name for name in names if self._draw.random() < 0.8]
        properties = {name: self._value(depth) for name in names}
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
