"""Durations and counts as people read them, in commands and in the reasons that they show."""

from __future__ import annotations


def age(seconds: float) -> str:
    """``8s``, ``3m``, ``2h``, ``5d``: the largest unit that fits."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"


def counted(number: int, noun: str) -> str:
    """``1 request``, ``2 requests``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
