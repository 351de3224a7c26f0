"""The key that tells one engine of a worker from another."""

from __future__ import annotations

from typing import TYPE_CHECKING, NewType

if TYPE_CHECKING:
    from worker_config.catalogue import ModelEntry

#: Today the model's name in the catalogue. Requests with one key share an engine, a batch and an aside list.
EngineKey = NewType("EngineKey", str)


def key_of(entry: ModelEntry) -> EngineKey:
    """The key of the engine that serves this model."""
    return EngineKey(entry.name)
