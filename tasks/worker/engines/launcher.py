"""Makes the engines and downloads of a worker, and starts none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.worker.engines.configs import Configs
from tasks.worker.engines.download import Download
from tasks.worker.engines.engine import Engine
from tasks.worker.profile.installation import Installation

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.messages.engine import StepOutput
    from tasks.models.footprint import Footprint, Source
    from tasks.worker.attempts.publisher import Publisher
    from tasks.worker.engines.budget import Reservation
    from tasks.worker.profile.profile import Profile
    from worker_config.catalogue import ModelEntry


class Launcher:
    """Makes engines and downloads with their configuration and the functions that they report to.

    Args:
        profile: the worker's settings and machine.
        publisher: where entries of requests go.
        on_step: called with each step of each engine.
        on_engine: called when an engine is ready, failed, is gone, or keeps to another size.
        on_download: called when a download got on, and at its end.
    """

    def __init__(
        self,
        profile: Profile,
        publisher: Publisher,
        on_step: Callable[[StepOutput], None],
        on_engine: Callable[[Engine], None],
        on_download: Callable[[Download], None],
    ) -> None:
        self._configs = Configs(profile.settings, profile.capacity)
        self._settings = profile.settings
        self._installation = Installation()
        self._publisher = publisher
        self._on_step = on_step
        self._on_engine = on_engine
        self._on_download = on_download

    def engine(self, entry: ModelEntry, source: Source, reservation: Reservation, footprint: Footprint) -> Engine:
        """An engine that will keep to its reservation, if that is sizable."""
        memory_bytes = reservation.held_bytes - footprint.process_bytes if reservation.sizable else None
        config = self._configs.of(entry, source, memory_bytes)
        parts = (self._publisher, self._installation, self._on_engine, self._on_step)
        return Engine(entry, config, reservation, footprint, *parts)

    def download(self, entry: ModelEntry) -> Download:
        """A download of a model of the hub."""
        fault_of = self._installation.fault_of
        return Download(entry, self._settings, self._on_download, cores=self._configs.cores, fault_of=fault_of)
