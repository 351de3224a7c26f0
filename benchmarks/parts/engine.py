"""An engine process without a worker, whose model is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.processes import BenchmarkError
from tasks.messages.engine import LoadFailed, Ready
from tasks.worker.engines.process import EngineProcess

if TYPE_CHECKING:
    from tasks.messages.engine import EngineConfig


def loaded_engine(config: EngineConfig) -> EngineProcess:
    """Start an engine, and wait until it has loaded its model. It is a context manager.

    Raises:
        BenchmarkError: the model cannot be loaded.
    """
    engine = EngineProcess.start(config)
    while not isinstance(message := engine.receive(), Ready):
        if isinstance(message, LoadFailed):
            engine.close()
            raise BenchmarkError(message.message)
    return engine
