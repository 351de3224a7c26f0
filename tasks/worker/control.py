"""Remote control: ``celery -A tasks control drain`` and ``resume``, which ``celery -A tasks fleet`` uses too."""

from __future__ import annotations

from typing import Any

from celery.worker.control import control_command

from tasks.worker.lifecycle import active_worker


@control_command()
def drain(state: Any, **_: Any) -> dict[str, str]:
    """Take no more requests; those that run go on. Answers at once."""
    return _tell("drain")


@control_command()
def resume(state: Any, **_: Any) -> dict[str, str]:
    """Take requests again, unless the worker is on its way out."""
    return _tell("resume")


def _tell(what: str) -> dict[str, str]:
    worker = active_worker()
    if worker is None:
        return {"error": "this worker serves no models, so it cannot drain"}
    getattr(worker, what)()
    record = worker.describe()
    return {"ok": record.status, "reason": record.reason}
