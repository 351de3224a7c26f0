"""A worker and an engine of other records do not begin to talk."""

from __future__ import annotations

from dataclasses import make_dataclass
from types import ModuleType
from typing import Any

import pytest

from tasks.messages import engine
from tasks.messages.protocol import protocol


def module_with(*fields: Any) -> ModuleType:
    """A module with one record."""
    made = ModuleType("records")
    record = make_dataclass("Record", fields)
    record.__module__ = made.__name__
    made.Record = record  # type: ignore[attr-defined]
    return made


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(module_with(("text", str), ("index", int), ("more", int)), id="another field"),
        pytest.param(module_with(("index", int), ("text", str)), id="another order"),
        pytest.param(module_with(("text", str), ("index", float)), id="another type"),
        pytest.param(module_with(("text", str), ("place", int)), id="another name"),
        pytest.param(ModuleType("records"), id="no such record"),
    ],
)
def test_records_that_differ(other: ModuleType) -> None:
    """A field that is added, moved, renamed or of another type makes another protocol."""
    ours = module_with(("text", str), ("index", int))
    assert protocol([ours]) == protocol([module_with(("text", str), ("index", int))])
    assert protocol([ours]) != protocol([other])


def test_all_that_is_exchanged_counts() -> None:
    """The records of every module go into it."""
    assert protocol() != protocol([engine])
