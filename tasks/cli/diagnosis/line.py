"""The lines of a diagnosis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from worker_config.units import GIB

#: A ``note`` is neither good nor bad: a use that this machine is not for.
Level: TypeAlias = Literal["ok", "note", "warning", "failure"]


@dataclass(frozen=True, slots=True)
class Line:
    """One finding: ``says`` about ``what``, by this ``source``; ``remedy`` says what to do about it."""

    level: Level
    what: str
    says: str
    remedy: str = ""
    source: str = ""


def gib(size_bytes: int) -> str:
    """A size in binary gigabytes, as memory is sold: "16 GB", "10.7 GB", "0.09 GB"."""
    size = size_bytes / GIB
    return f"{size:,.0f} GB" if size >= 100 else f"{size:.3g} GB" if size >= 1 else f"{size:.2f} GB"
