"""Figures and names as people read them. Everything comes from other machines, so nothing is taken on trust."""

from __future__ import annotations

from typing import Any
from unicodedata import combining, east_asian_width

from worker_config.tiers import TIERS
from worker_config.units import GIB, MIB

NOTHING = "–"
BAR_COLUMNS = 8
FULL, EMPTY = "█", "░"


def clean(value: Any) -> str:
    """Text without control characters, which would move a terminal's cursor or colours, and without half characters."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in str(value))


def width(text: str) -> int:
    """Return how many columns of a terminal a text takes: two for East Asian wide characters, none for combining marks."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(character) else 2 if east_asian_width(character) in "WF" else 1 for character in text)


def cut(text: str, columns: int) -> str:
    """The text, shortened with an ellipsis where it is wider than this."""
    if width(text) <= columns:
        return text
    while text and width(text) > columns - 1:
        text = text[:-1]
    return f"{text}…"


def number_of(value: Any) -> float | None:
    """A number, if it is one."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def bar(part: int, whole: int, columns: int = BAR_COLUMNS) -> str:
    """A share as a bar and in figures: ``████░░ 6/10``; the smallest share and the largest rest both show."""
    if whole <= 0:
        return f"{part}/{whole}"
    full = min(max(round(columns * part / whole), 1 if part else 0), columns if part >= whole else columns - 1)
    return f"{FULL * full}{EMPTY * (columns - full)} {part}/{whole}"


def rate(value: Any) -> str:
    """``0``, ``8.5``, ``120``, ``3.2k``."""
    found = number_of(value)
    if found is None:
        return NOTHING
    if found >= 10_000:
        return f"{found / 1000:.0f}k"
    if found >= 1000:
        return f"{found / 1000:.1f}k"
    return f"{found:.0f}" if found >= 10 or found == 0 else f"{found:.1f}"


def milliseconds(value: Any) -> str:
    """``85ms``, ``1.2s``, ``75s``."""
    found = number_of(value)
    if found is None:
        return NOTHING
    if found < 1000:
        return f"{found:.0f}ms"
    return f"{found / 1000:.1f}s" if found < 10_000 else f"{found / 1000:.0f}s"


def percent(value: Any) -> str:
    """``97%``."""
    found = number_of(value)
    return NOTHING if found is None else f"{found:.0f}%"


def gib(value: Any) -> str:
    """Bytes in binary gigabytes: ``0.4``, ``96``."""
    found = number_of(value)
    if found is None:
        return NOTHING
    return f"{found / GIB:.1f}" if found < 10 * GIB else f"{found / GIB:.0f}"


def size(value: int) -> str:
    """Bytes with their unit: ``13 MB``, ``2.0 GB``."""
    return f"{gib(value)} GB" if value >= GIB else f"{value / MIB:.0f} MB"


def tiers(queues: list[str]) -> str:
    """Name the tiers of these queues: ``all``, ``≤7-13B`` (it and every smaller one), or their names."""
    served = [tier.name for tier in TIERS if tier.queue in queues]
    if not served:
        return NOTHING
    if len(served) == len(TIERS):
        return "all"
    if len(served) > 1 and served == [tier.name for tier in TIERS[: len(served)]]:
        return f"≤{served[-1]}"
    return " ".join(served)
