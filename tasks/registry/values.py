"""Reads Redis's answers as values. No function here raises, even if somebody has written garbage there."""

from __future__ import annotations

import json
from math import isfinite
from typing import Any


def text(value: Any) -> str:
    """Return bytes or text as text; bytes that are not UTF-8 become replacement characters."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def number(value: Any) -> float | None:
    """A finite number out of a number or its text; ``None`` where there is none."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if isfinite(found) else None


def json_object(payload: Any) -> dict[str, Any]:
    """The object in this JSON text; empty where there is none."""
    if not isinstance(payload, str | bytes):
        return {}
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
