"""The other workers of the fleet, as far as this one asks: who has a model loaded, and who could load it."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Protocol

from tasks.errors import BrokerUnavailable, GenerationError
from tasks.messages.registry import WorkerRecord
from tasks.models.footprint import expected
from tasks.models.key import EngineKey, key_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.registry import Registry
    from worker_config.catalogue import ModelEntry

logger = logging.getLogger(__name__)

#: Minimum time between two reads of the registry.
LOOK_S = 3.0


class Peers(Protocol):
    """The other workers, as their records describe them."""

    def look(self) -> None:
        """Read the others' records, if the last look was long ago. May wait for Redis."""

    def have_loaded(self, queue: str, key: EngineKey) -> bool:
        """Whether another live worker that serves this queue has the engine loaded."""

    def could_load(self, queue: str, entry: ModelEntry) -> bool:
        """Whether another live worker that serves this queue has memory enough for the model, as far as it knows the model."""

    def may_know(self, queue: str, key: EngineKey) -> bool:
        """Whether another live worker that serves this queue has not said that it does not know the model."""

    def room(self, queue: str) -> str:
        """Describe the memory of the others that serve this queue, for a message; empty if there are none."""


class RegistryPeers:
    """The others, by their records in the registry.

    Args:
        registry: where the records are.
        identity: this worker, which is not one of them.
        step_tokens: prompt tokens that one step of an engine computes.
    """

    def __init__(self, registry: Registry, identity: str, step_tokens: int) -> None:
        self._registry = registry
        self._identity = identity
        self._step_tokens = step_tokens
        self._records: list[WorkerRecord] = []
        self._looked_at = float("-inf")
        self._lock = threading.Lock()

    def look(self) -> None:
        """Read the registry, unless that was done in the last :data:`LOOK_S` seconds. Redis's absence changes nothing."""
        with self._lock:
            if time.monotonic() - self._looked_at < LOOK_S:
                return
            self._looked_at = time.monotonic()
            try:
                reading = self._registry.read()
            except BrokerUnavailable as error:
                logger.debug("the other workers could not be looked at: %s", error)
                return
            self._records = [
                record
                for record in reading.records
                if isinstance(record, WorkerRecord)
                and record.identity in reading.leases
                and record.identity != self._identity
                and record.status != "draining"
                and not record.paused
            ]

    def have_loaded(self, queue: str, key: EngineKey) -> bool:
        """See :class:`Peers`."""
        return any(key in record.models for record in self._serving(queue))

    def could_load(self, queue: str, entry: ModelEntry) -> bool:
        """See :class:`Peers`."""
        return any(self._fits(entry, record) for record in self._knowing(queue, key_of(entry)))

    def may_know(self, queue: str, key: EngineKey) -> bool:
        """See :class:`Peers`."""
        return any(True for _ in self._knowing(queue, key))

    def room(self, queue: str) -> str:
        """See :class:`Peers`."""
        return ", ".join(f"{record.node} {record.room_bytes / 1e9:.1f} GB" for record in self._serving(queue))

    def _knowing(self, queue: str, key: EngineKey) -> Iterator[WorkerRecord]:
        return (record for record in self._serving(queue) if key not in record.unknown_models)

    def _serving(self, queue: str) -> Iterator[WorkerRecord]:
        return (record for record in self._records if queue in record.queues)

    def _fits(self, entry: ModelEntry, record: WorkerRecord) -> bool:
        hardware = record.hardware
        accelerator = str(hardware.get("engine_accelerator") or hardware.get("accelerator") or "")
        try:
            return expected(entry, accelerator, self._step_tokens, record.room_bytes).floor_bytes <= record.room_bytes
        except GenerationError:
            return False
