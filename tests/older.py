"""The application ``tasks``, under whose worker the package is replaced: an engine that starts later has other records."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from celery import signals

from tasks.celery import app
from tasks.messages import load
from tasks.worker.engines.process import EngineProcess

__all__ = ["app"]

#: The model before whose load that happens.
MODEL = os.environ.get("TEST_REPLACED_BEFORE", "")

_start = EngineProcess.start


@dataclass
class Retired:
    """A record that this worker has, and that newer code has not."""


def _start_newer(config: Any, *args: Any) -> EngineProcess:
    if config.model == MODEL:
        Retired.__module__ = load.__name__
        load.Retired = Retired  # type: ignore[attr-defined]
    return _start(config, *args)


@signals.worker_init.connect
def _prepare(**_: Any) -> None:
    EngineProcess.start = _start_newer  # type: ignore[method-assign, assignment]
