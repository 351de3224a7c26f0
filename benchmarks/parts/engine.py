"""An engine process without a worker, whose model is loaded."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks.processes import BenchmarkError
from tasks.hardware import detect
from tasks.messages.load import LoadFailed, Ready
from tasks.worker.engines.configs import engine_threads
from tasks.worker.engines.process import EngineProcess, engine_environment
from worker_config.settings import current_settings

if TYPE_CHECKING:
    from tasks.messages.engine import EngineConfig


def loaded_engine(config: EngineConfig) -> EngineProcess:
    """Start an engine, and wait until it has loaded its model. It is a context manager.

    Raises:
        BenchmarkError: the model cannot be loaded.
    """
    engine = EngineProcess.start(replace(config, threads=_threads()))
    while not isinstance(message := engine.receive(), Ready):
        if isinstance(message, LoadFailed):
            engine.close()
            raise BenchmarkError(message.message)
    return engine


def contender_environment() -> dict[str, str]:
    """The environment that gives another program as many threads as a worker gives its engines."""
    return engine_environment(_threads())


def _threads() -> int:
    return engine_threads(detect(current_settings()))
