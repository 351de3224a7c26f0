"""Makes the configurations that the engines of a worker get at their start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil

from tasks.messages.engine import EngineConfig
from tasks.worker.cores import available_cores
from tasks.worker.profile.slots import urgent_slots

if TYPE_CHECKING:
    from tasks.hardware import Hardware
    from tasks.models.footprint import Source
    from tasks.worker.profile.capacity import Capacity
    from worker_config.catalogue import ModelEntry
    from worker_config.settings import Settings

#: The part of the budget that cached prompts may take in each engine.
PROMPT_CACHE_SHARE = 0.1
#: The most threads of a decode step: its products are small, and more threads only wait for each other. Never measured above two.
MOST_BLAS_THREADS = 8


class Configs:
    """Makes the configurations.

    Args:
        settings: batch and cache sizes.
        capacity: the share of the machine that the worker may use.
    """

    def __init__(self, settings: Settings, capacity: Capacity) -> None:
        self._settings = settings
        self._capacity = capacity
        self._threads = engine_threads(capacity.hardware)
        #: Those of the thread that makes this, at the worker's start: later it is kept on one.
        self.cores = tuple(sorted(available_cores()))

    def of(self, entry: ModelEntry, source: Source | None, memory_budget_bytes: int | None = None) -> EngineConfig:
        """The configuration of one model's engine.

        Args:
            entry: the model.
            source: where its files are; ``None`` has the engine ask the hub.
            memory_budget_bytes: the most memory of MLX that it may take; ``None`` means no bound.
        """
        settings = self._settings
        max_batch = settings.max_batch or self._capacity.most_batch
        return EngineConfig(
            model=entry.name,
            source=source.path if source is not None else entry.source,
            revision=source.revision if source is not None else entry.revision,
            max_batch=max_batch,
            urgent_rows=urgent_slots(max_batch, settings.batch_share),
            prefill_step_tokens=settings.prefill_step_tokens,
            prompt_cache_bytes=settings.prompt_cache_bytes or int(self._capacity.budget_bytes * PROMPT_CACHE_SHARE),
            memory_budget_bytes=memory_budget_bytes,
            context_tokens=entry.context_tokens,
            chat_template=entry.chat_template,
            adapter=entry.adapter,
            trust_remote_code=entry.trust_remote_code,
            try_each_load=settings.try_each_load,
            threads=self._threads,
            cores=self.cores,
        )


def engine_threads(hardware: Hardware) -> int:
    """Return how many threads each engine computes with on a CPU: one for each core that it may use.

    Cores count once, however many threads they run at a time. Each engine of a machine gets as many.
    """
    cores = hardware.cpu_cores
    return min(cores, psutil.cpu_count(logical=False) or cores, MOST_BLAS_THREADS)
