"""Celery's command ``revoke``, where a request may run on another worker: its journal says how it ends, and nothing else does.

Celery has every worker that does not run a task store REVOKED for it. ``get()`` then raised while the request went on, and its
stream ended with its last token.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery.platforms import signals
from celery.utils.functional import maybe_list
from celery.worker import state as celery_state
from celery.worker.control import Panel

from tasks.broker.queues.ledger import known
from tasks.errors import GenerationError
from tasks.worker.current import active_worker
from tasks.worker.unstarted import end_unstarted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

logger = logging.getLogger(__name__)

_stock: Callable[..., Any] = Panel.data["revoke"]


def revoke(state: Any, task_id: str | Iterable[str], terminate: bool = False, signal: Any = None) -> Any:
    """Cancel requests that run here as Celery does; end those that nobody runs; leave to others those that they run."""
    ids = dict.fromkeys(maybe_list(task_id))
    here = {request.id for request in celery_state.active_requests}
    requests = _requests([found for found in ids if found not in here])
    celery_state.revoked.update(requests)
    for found in requests:
        if end_unstarted(found, expired=False):
            state.app.backend.mark_as_revoked(found, reason="revoked")
        request = celery_state.requests.get(found)
        if terminate and request is not None:  # it was about to begin, and may have
            request.terminate(state.consumer.pool, signal=signals.signum(signal or "TERM"))
    rest = [found for found in ids if found not in requests]
    if not rest:
        return {"ok": f"tasks {', '.join(requests)} flagged as revoked"}
    return _stock(state, rest, terminate=terminate, signal=signal)


def _requests(task_ids: list[str]) -> set[str]:
    """Those that are requests of ours; where Redis cannot be asked all of them are left to their journals."""
    worker = active_worker()
    if worker is None or not task_ids:
        return set()
    try:
        return known(worker.links.client, task_ids)
    except GenerationError as error:
        logger.warning("whether %s are requests cannot be seen: %s", ", ".join(task_ids), error)
        return set(task_ids)
