r"""Control characters in a JSON Schema: JSON has most of them as ``\u`` alone, which answers do not write.

llguidance leaves such a character out of a text, so that ``"a\u0001b"`` is answered by ``"ab"``.
"""

from __future__ import annotations

import re
from typing import Any

_CHARACTER = re.compile(r"[\x00-\x07\x0b\x0e-\x1f\x7f]")
#: The parts of an expression: escapes, sets of characters, others.
_PARTS = re.compile(r"\\x[0-9A-Fa-f]{2}|\\u[0-9A-Fa-f]{4}|\\.|\[\^?(?:\\.|[^\]\\])*\]|.", re.DOTALL)
_ESCAPED = re.compile(r"\\x(?:0[0-7bBeEfF]|1[0-9A-Fa-f]|7[fF])|\\u00(?:0[0-7bBeEfF]|1[0-9A-Fa-f]|7[fF])|\\[av0]")
REMEDY = "has a control character, which no answer can have; leave it out"


def control_characters(part: dict[str, Any]) -> list[str]:
    """List what is wrong with the values and expressions of a schema, without the schemas in it."""
    values = [name for name in ("const", "enum") if name in part and _in_value(part[name])]
    patterns = [part["pattern"]] if "pattern" in part else []
    names = part.get("patternProperties")
    patterns += names if isinstance(names, dict) else []
    found = [
        f"pattern: {pattern!r:.100} {REMEDY}"
        for pattern in patterns
        if isinstance(pattern, str) and _in_pattern(pattern)
    ]
    return [*(f"{name}: {REMEDY}" for name in values), *found]


def _in_value(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_in_value, (*value, *value.values())))
    return (
        any(map(_in_value, value))
        if isinstance(value, list)
        else isinstance(value, str) and bool(_CHARACTER.search(value))
    )


def _in_pattern(pattern: str) -> bool:
    """Whether it asks for a control character. A set with other characters in it leaves a choice, and so asks for none."""
    parts = (part[1:-1] if part[0] == "[" and len(part) > 1 else part for part in _PARTS.findall(pattern))
    return any(_CHARACTER.fullmatch(part) or _ESCAPED.fullmatch(part) for part in parts)
