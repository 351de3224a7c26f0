"""The models that this worker may load: their files, their needs, and their queues."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.errors import GenerationError
from tasks.models.footprint import Footprint, Source, expected, local_source
from tasks.models.key import EngineKey, key_of
from tasks.models.routing import tier_of
from worker_config.catalogue import ModelNotAllowed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tasks.worker.profile.capacity import Capacity
    from worker_config.catalogue import Catalogue, ModelEntry


@dataclass(slots=True, frozen=True)
class Known:
    """One model. ``source`` is ``None`` where its files have to be fetched from the hub first."""

    footprint: Footprint
    source: Source | None


class KnownModels:
    """Remembers the memory that models need: by their files before they are loaded, by measurement after. Any thread may call it.

    Args:
        catalogue: the models.
        capacity: the share of the machine that the worker may use.
        step_tokens: prompt tokens that one step of an engine computes.
    """

    def __init__(self, catalogue: Catalogue, capacity: Capacity, step_tokens: int) -> None:
        self._catalogue = catalogue
        self._accelerator = capacity.hardware.engine_accelerator
        self._budget_bytes = capacity.budget_bytes
        self._step_tokens = step_tokens
        self._footprints: dict[EngineKey, Footprint] = {}
        self._sources: dict[EngineKey, Source] = {}
        self._queues: dict[EngineKey, str] = {}

    def look_up(self, entry: ModelEntry) -> Known:
        """Look a model up. Reads its files, so never with a lock held that others wait for.

        Raises:
            GenerationError: its files ought to be here and are not, or nothing tells its size.
        """
        key = key_of(entry)
        source = self._sources.get(key) or local_source(entry)
        if key not in self._footprints:
            # A measurement that comes meanwhile stands.
            self._footprints.setdefault(key, expected(entry, self._accelerator, self._step_tokens, self._budget_bytes))
        if key not in self._queues:
            self._queues[key] = _queue_of(entry)
        return Known(self._footprints[key], source)

    def entries(self, keys: Iterable[EngineKey]) -> dict[EngineKey, ModelEntry]:
        """Look up models by their keys; those are left out that the catalogue does not have or nothing tells the size of.

        Reads files, as :meth:`look_up` does.
        """
        entries = {}
        for key in keys:
            with suppress(ModelNotAllowed, GenerationError):  # other workers may know it
                entry = self._catalogue.resolve(key)
                self.look_up(entry)
                entries[key] = entry
        return entries

    def footprint(self, key: EngineKey) -> Footprint | None:
        """Return the memory that a model needs, as far as it was looked up. Reads no file."""
        return self._footprints.get(key)

    def queue(self, key: EngineKey) -> str:
        """The queue of a model's requests, as far as it was looked up; empty where it is not known. Reads no file."""
        return self._queues.get(key, "")

    def measured(self, key: EngineKey, footprint: Footprint) -> None:
        """A loaded engine needs this."""
        self._footprints[key] = footprint

    def fetched(self, key: EngineKey, source: Source) -> None:
        """A model's files have come, so that their headers can be read."""
        self._footprints.pop(key, None)
        self._queues.pop(key, None)
        self._sources[key] = source

    def forget_source(self, key: EngineKey) -> None:
        """Look for a model's files again before the next load: they may have been the fault."""
        self._sources.pop(key, None)


def _queue_of(entry: ModelEntry) -> str:
    try:
        return tier_of(entry).queue
    except GenerationError:
        return ""
