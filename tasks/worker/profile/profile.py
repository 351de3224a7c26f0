"""The profile of a worker, which does not change: its name, its machine, and its settings."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.worker.profile.capacity import Capacity
    from worker_config.catalogue import Catalogue
    from worker_config.settings import Settings


def _new_boot() -> str:
    return uuid.uuid4().hex[:12]


@dataclass(frozen=True, slots=True)
class Profile:
    """A worker's name, machine and configuration.

    Args:
        settings: the project's settings.
        catalogue: the models that the project may use.
        node: the worker's node name.
        queues: the queues that it consumes.
        capacity: the share of its machine that it may use.
        boot: differs at each start of a worker of this name.
    """

    settings: Settings
    catalogue: Catalogue
    node: str
    queues: list[str]
    capacity: Capacity
    boot: str = field(default_factory=_new_boot)

    @property
    def identity(self) -> str:
        """``node#boot``."""
        return f"{self.node}#{self.boot}"
