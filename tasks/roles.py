"""What a process of Celery's becomes that includes a task of this project: a worker of it, or the home of its sweep."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from celery import signals


@signals.celeryd_init.connect
def _become_worker(instance: Any, **_: Any) -> None:
    """A worker that includes this module starts in this process: connect its side of it."""
    import_module(".worker.celery.lifecycle", __package__).prepare(instance.app)


@signals.beat_init.connect
def _begin_sweep(sender: Any, **_: Any) -> None:
    """Beat starts in this process: the sweep runs beside it."""
    import_module(".sweep", __package__).start_sweep(sender.app)
