"""Remote control: ``celery -A tasks control drain``, ``resume``, ``load_model NAME``, ``unload_model NAME``, ``pin_model NAME``.

``celery -A tasks fleet`` and ``celery -A tasks models`` use them too. Each answers at once. Some of Celery's own, which Flower
has buttons for, mean something else here: ``shutdown`` drains as SIGTERM does, and nothing changes the number of slots. The
types of all arguments have been checked by then (:mod:`tasks.worker.celery.mailbox`).
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from celery.utils.functional import maybe_list
from celery.worker import state as celery_state
from celery.worker.control import Panel, control_command

from tasks.broker.channel.holding import OPTION
from tasks.errors import GenerationError
from tasks.models.key import key_of
from tasks.names import is_ours
from tasks.worker.celery.revoke import revoke
from tasks.worker.current import active_worker
from tasks.worker.record import describe
from worker_config.catalogue import ModelNotAllowed
from worker_config.celeryconfig import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.worker.drain import Drain
    from tasks.worker.worker import InferenceWorker

logger = logging.getLogger(__name__)

#: A ``revoke`` of more ids than this would keep the worker's loop from fetching and acknowledging.
IDS_AT_ONCE = 100

NO_MODELS = {"error": "this worker serves no models"}
FIXED = {"error": "slots follow from the hardware, and from -c at the start; they cannot be changed meanwhile"}


class _None(tuple[()]):
    """The arguments of a command that takes none, which is no empty list for Celery.

    Celery passes over what is typed behind a command with an empty one: ``control drain NODE`` would drain every worker.
    """

    __slots__ = ()

    def __bool__(self) -> bool:
        return True


#: What Celery says of a word too many.
_BY_OPTION = "none; name a worker by -d NODE"


@control_command(args=_None(), signature=_BY_OPTION)
def drain(state: Any, **_: Any) -> dict[str, str]:
    """Take no more requests; running ones continue. Answers at once."""
    return _tell(lambda drain: drain.begin())


@control_command(args=_None(), signature=_BY_OPTION)
def resume(state: Any, **_: Any) -> dict[str, str]:
    """Take requests again, unless the worker is stopping."""
    return _tell(lambda drain: drain.end())


@control_command(args=[("name", str)], signature="NAME")
def load_model(state: Any, name: str, **_: Any) -> dict[str, str]:
    """Begin to load a model; normal idle rules apply."""
    return _load(name, pin=False)


@control_command(args=[("name", str)], signature="NAME")
def pin_model(state: Any, name: str, **_: Any) -> dict[str, str]:
    """Load a model if need be, and keep it: it is never evicted."""
    return _load(name, pin=True)


@control_command(args=[("name", str)], signature="NAME")
def unload_model(state: Any, name: str, **_: Any) -> dict[str, str]:
    """End a model's engine once its requests are done; a pinned one is pinned no more."""
    worker = active_worker()
    if worker is None:
        return NO_MODELS
    try:
        found = worker.engines.unload(key_of(worker.profile.catalogue.resolve(name)))
    except ModelNotAllowed as error:
        return {"error": str(error)}
    return {"ok": f"{name} ends", "reason": _held(worker)} if found else {"error": f"{name} is not loaded"}


def _load(name: str, *, pin: bool) -> dict[str, str]:
    worker = active_worker()
    if worker is None:
        return NO_MODELS
    try:
        entry = worker.profile.catalogue.resolve(name)
        worker.engines.load(entry, pin=pin)
    except (ModelNotAllowed, GenerationError) as error:
        return {"error": str(error)}
    return {"ok": f"{entry.name} is {worker.engines.state_of(entry.name)}", "reason": _held(worker, but=entry.name)}


def _held(worker: InferenceWorker, but: str = "") -> str:
    states = (state for state in worker.engines.states() if state.model != but)
    return ", ".join(f"{state.model} {state.state}{' pinned' * state.pinned}" for state in states)


def _tell(tell: Callable[[Drain], None]) -> dict[str, str]:
    worker = active_worker()
    if worker is None:
        return {"error": "this worker serves no models, so it cannot drain"}
    tell(worker.drain)
    record = describe(worker)
    return {"ok": record.status, "reason": record.reason}


def _shut_down(worker: InferenceWorker) -> dict[str, str]:
    worker.drain.leave()
    return {"ok": "draining"}


def _instead(name: str, answer: Callable[[InferenceWorker], dict[str, str]]) -> None:
    """Answer one of Celery's commands ourselves, in a worker that serves models."""
    stock = Panel.data[name]

    def command(state: Any, **options: Any) -> Any:
        worker = active_worker()
        return stock(state, **options) if worker is None else answer(worker)

    Panel.data[name] = command


def _revoke_many(state: Any, task_id: str | list[str], terminate: bool = False, signal: Any = None) -> Any:
    """``revoke`` asks Redis about every id, so a long list is worked through on another thread."""
    ids = list(dict.fromkeys(maybe_list(task_id)))
    if len(ids) <= IDS_AT_ONCE:
        answer = revoke(state, ids, terminate=terminate, signal=signal)
        _hasten(ids)
        return answer
    celery_state.revoked.update(ids)
    here = [task_id for task_id in ids if task_id in celery_state.requests]
    if here:
        revoke(state, here, terminate=terminate, signal=signal)
    threading.Thread(target=_revoke_rest, args=(state, ids), name="revoke", daemon=True).start()
    return {"ok": f"{len(ids)} tasks flagged as revoked"}


def _revoke_rest(state: Any, ids: list[str]) -> None:
    revoke(state, ids)
    _hasten(ids)


def _hasten(ids: list[str]) -> None:
    """Requests that are scheduled end now, and not only when they are due."""
    worker = active_worker()
    if worker is not None:
        try:
            worker.hasten(ids)
        except GenerationError as error:
            logger.warning("%s; scheduled requests that were revoked end when they are due", error)


_stats: Callable[..., dict[str, Any]] = Panel.data["stats"]


def stats_without_password(state: Any, **options: Any) -> dict[str, Any]:
    """Celery's ``stats`` leaves out the broker's password, but not that of its Sentinels."""
    stats = _stats(state, **options)
    broker = stats.get("broker")
    if isinstance(broker, dict) and isinstance(broker.get("transport_options"), dict):
        shown = {
            name: value
            for name, value in broker["transport_options"].items()
            if name not in ("sentinel_kwargs", OPTION, SETTINGS)
        }
        stats["broker"] = {**broker, "transport_options": shown}
    return stats


def _active(state: Any, safe: bool = False, **_: Any) -> list[dict[str, Any]]:
    """Celery's ``active``, without requests whose readers know that they have ended."""
    requests = state.tset(celery_state.active_requests)
    return [request.info(safe=safe) for request in requests if not getattr(request, "has_ended", False)]


Panel.data["active"] = Panel.data["dump_active"] = _active
Panel.data["stats"] = stats_without_password
Panel.data["revoke"] = _revoke_many
Panel.data["terminate"] = lambda state, task_id, signal=None: _revoke_many(
    state, task_id, terminate=True, signal=signal
)
_rate_limit: Callable[..., Any] = Panel.data["rate_limit"]


def _limit_rate(state: Any, task_name: str, rate_limit: str | float) -> Any:
    if is_ours(task_name) and active_worker() is not None:
        return {"error": f"{task_name} has no rate limit: its workers' slots are its limit"}
    return _rate_limit(state, task_name, rate_limit)


Panel.data["rate_limit"] = _limit_rate
_instead("shutdown", _shut_down)
Panel.meta["shutdown"] = Panel.meta["shutdown"]._replace(args=_None(), signature=_BY_OPTION)
for _name in ("pool_grow", "pool_shrink", "pool_restart", "autoscale"):
    _instead(_name, lambda _worker: FIXED)
