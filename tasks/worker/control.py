"""Remote control: ``celery -A tasks control drain``, ``resume``, ``load_model NAME``, ``unload_model NAME``, ``pin_model NAME``.

``celery -A tasks fleet`` and ``celery -A tasks models`` use them too. Each answers at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.worker.control import control_command

from tasks.errors import GenerationError
from tasks.worker.lifecycle import active_worker
from worker_config.catalogue import ModelNotAllowed

if TYPE_CHECKING:
    from tasks.worker.worker import InferenceWorker

NO_MODELS = {"error": "this worker serves no models"}


@control_command()
def drain(state: Any, **_: Any) -> dict[str, str]:
    """Take no more requests; those that run go on. Answers at once."""
    return _tell("drain")


@control_command()
def resume(state: Any, **_: Any) -> dict[str, str]:
    """Take requests again, unless the worker is on its way out."""
    return _tell("resume")


@control_command(args=[("name", str)], signature="NAME")
def load_model(state: Any, name: str, **_: Any) -> dict[str, str]:
    """Begin to load a model, which stays as long as others do."""
    return _load(name, pin=False)


@control_command(args=[("name", str)], signature="NAME")
def pin_model(state: Any, name: str, **_: Any) -> dict[str, str]:
    """Load a model if need be, and keep it: it never gives way to another."""
    return _load(name, pin=True)


@control_command(args=[("name", str)], signature="NAME")
def unload_model(state: Any, name: str, **_: Any) -> dict[str, str]:
    """End a model's engine once its requests are done; a pinned one is pinned no more."""
    worker = active_worker()
    if worker is None:
        return NO_MODELS
    try:
        found = worker.engines.unload(worker.catalogue.resolve(name).name)
    except ModelNotAllowed as error:
        return {"error": str(error)}
    return {"ok": f"{name} ends", "reason": _held(worker)} if found else {"error": f"{name} is not loaded"}


def _load(name: str, *, pin: bool) -> dict[str, str]:
    worker = active_worker()
    if worker is None:
        return NO_MODELS
    try:
        entry = worker.catalogue.resolve(name)
        worker.engines.load(entry, pin=pin)
    except (ModelNotAllowed, GenerationError) as error:
        return {"error": str(error)}
    return {"ok": f"{entry.name} is {worker.engines.state_of(entry.name)}", "reason": _held(worker)}


def _held(worker: InferenceWorker) -> str:
    return ", ".join(f"{each.model} {each.state}{' pinned' * each.pinned}" for each in worker.engines.states())


def _tell(what: str) -> dict[str, str]:
    worker = active_worker()
    if worker is None:
        return {"error": "this worker serves no models, so it cannot drain"}
    getattr(worker, what)()
    record = worker.describe()
    return {"ok": record.status, "reason": record.reason}
