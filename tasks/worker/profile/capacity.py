"""The capacity that a machine gives a worker: memory for models, and slots for requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.models.capabilities import memory_budget_bytes

if TYPE_CHECKING:
    from tasks.hardware import Hardware
    from tasks.worker.profile.slots import Slots


@dataclass(frozen=True, slots=True)
class Capacity:
    """The share of its machine that one worker may use.

    Args:
        hardware: the machine.
        slots: how many requests the worker runs at once.
        budget_bytes: memory for the weights and KV caches of all its engines together.
    """

    hardware: Hardware
    slots: Slots
    budget_bytes: int

    @classmethod
    def of(cls, hardware: Hardware, slots: Slots) -> Capacity:
        """The capacity of a worker that has the machine for itself."""
        return cls(hardware, slots, memory_budget_bytes(hardware))

    @property
    def most_batch(self) -> int:
        """The largest batch that a request can find itself in."""
        return max(self.slots.by_queue.values(), default=self.slots.total)
