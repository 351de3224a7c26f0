"""The engines of a process that answers requests itself, without a worker."""

from __future__ import annotations

import atexit
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tasks.errors import EngineFailed, ModelLoadFailed, error_for
from tasks.hardware import detect
from tasks.messages.load import LoadFailed, Ready
from tasks.models.footprint import local_source
from tasks.worker.engines.configs import Configs
from tasks.worker.engines.process import EngineGone, EngineProcess
from tasks.worker.profile.capacity import Capacity
from tasks.worker.profile.installation import Installation
from tasks.worker.profile.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.errors import GenerationError
    from tasks.messages.engine import EngineConfig
    from worker_config.catalogue import ModelEntry
    from worker_config.settings import Settings


class EagerEngines:
    """One engine for each model, started at its first request and ended with this process. Any thread may ask, one at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._installation = Installation()
        self._loaded: dict[str, tuple[EngineProcess, Ready]] = {}

    @contextmanager
    def having(self, entry: ModelEntry, settings: Settings) -> Iterator[tuple[EngineProcess, Ready]]:
        """The engine of a model, for one request alone. It ends where that request does not.

        Raises:
            GenerationError: it cannot be loaded, or it died.
        """
        with self._lock:
            engine = self._engine(entry, settings)
            try:
                yield engine
            except EngineGone as error:
                self._drop(entry.name)
                raise EngineFailed(str(error)) from None
            except BaseException:
                # An interrupt may have cut a message in two, and what is left of this answer is nobody's.
                self._drop(entry.name)
                raise

    def process(self, name: str) -> EngineProcess | None:
        """The process of a model's engine; ``None`` if there is none."""
        process, _ = self._loaded.get(name, (None, None))
        return process

    def close(self) -> None:
        """End all engines; the next request of each model starts another."""
        with self._lock:
            for name in tuple(self._loaded):
                self._drop(name)

    def _engine(self, entry: ModelEntry, settings: Settings) -> tuple[EngineProcess, Ready]:
        if entry.name not in self._loaded:
            configs = Configs(settings, Capacity(detect(settings), Slots({}, total=1), budget_bytes=0))
            process = self._started(configs.of(entry, local_source(entry)))
            atexit.register(process.close)
            try:
                self._loaded[entry.name] = process, self._ready(process)
            except BaseException:
                _end(process)
                raise
        return self._loaded[entry.name]

    def _started(self, config: EngineConfig) -> EngineProcess:
        try:
            return EngineProcess.start(config)
        except OSError as error:
            why = f"no process could be started for it: {error}"
            raise self._not_loaded(config.model, why, f"{type(error).__name__}: {error}") from None

    def _ready(self, process: EngineProcess) -> Ready:
        model = process.config.model
        try:
            while not isinstance(message := process.receive(), Ready):
                if isinstance(message, LoadFailed):
                    # mlx-lm says so of a model, too, whose code is being replaced just now.
                    if message.code == ModelLoadFailed.code and (fault := self._installation.fault()):
                        raise _outdated(model, fault)
                    raise error_for(message.code)(message.message)
        except EngineGone as error:
            if error.exitcode == os.EX_PROTOCOL:
                raise _outdated(model, "the code of its engines was replaced") from None
            if error.is_accident:
                raise EngineFailed(f"model {model!r} cannot be loaded: {error}") from None
            raise self._not_loaded(model, str(error), str(error), ModelLoadFailed) from None
        return message

    def _not_loaded(
        self, model: str, why: str, last_words: str, otherwise: type[GenerationError] = EngineFailed
    ) -> GenerationError:
        """Return the error of a load that failed: the installation's fault, if something is known against that."""
        if fault := self._installation.fault_of(last_words):
            return _outdated(model, fault)
        return otherwise(f"model {model!r} cannot be loaded: {why}")

    def _drop(self, name: str) -> None:
        process, _ = self._loaded.pop(name)
        _end(process)


def _end(process: EngineProcess) -> None:
    process.close()
    atexit.unregister(process.close)


def _outdated(model: str, fault: str) -> EngineFailed:
    return EngineFailed(f"model {model!r} cannot be loaded by this process: {fault}; start the process again")
