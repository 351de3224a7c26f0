"""Ends the journals of requests that never run: revoked or expired while they waited, or messages that are no requests."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from tasks.broker.queues.ledger import forget
from tasks.errors import Cancelled, Expired, GenerationError, InvalidRequest
from tasks.messages.journal import End, Error
from tasks.worker.current import active_worker

if TYPE_CHECKING:
    from tasks.messages.journal import Entry

logger = logging.getLogger(__name__)


def end_unstarted(task_id: str, *, expired: bool) -> bool:
    """End the journal of a request whose task will never run: revoked while it waited, or expired.

    ``False``: it runs, or has ended in another way, and its result will say so.
    """
    worker = active_worker()
    if worker is None:
        return True
    entry: End | Error = End(attempt=0, index=0, finish_reason="cancelled", usage={})
    if expired:
        entry = Error(attempt=0, code="expired", message="the request waited in its queue for longer than its expires")
    try:
        answer = worker.links.journal.end_unclaimed(task_id, entry, worker.claims.nonce(task_id))
        return answer == "ended" or (answer == "already" and _was_stopped(worker.links.journal.read(task_id)[-1]))
    except GenerationError:
        logger.exception("the journal of %s could not be ended; the sweep will do it", task_id)
        return True


def forget_unclaimed(task_id: str) -> None:
    """Delete the ledger's entry of such a request: a claim would have done so, and the sweep does it half a minute later."""
    worker = active_worker()
    if worker is None:
        return
    try:
        forget(worker.links.client, task_id)
    except GenerationError as error:
        logger.warning("the entry of %s stays until the sweep finds it: %s", task_id, error)


def _was_stopped(last: Entry) -> bool:
    return (isinstance(last, End) and last.finish_reason == "cancelled") or (
        isinstance(last, Error) and last.code in (Cancelled.code, Expired.code)
    )


def refuse_message(task_id: str | None, why: str) -> None:
    """Report once, to the readers of its id, what is wrong with a message that is no request. A request of this id goes on."""
    logger.error("a message%s was dropped: %s", f" with the id {task_id!r}" if task_id else " without an id", why)
    worker = active_worker()
    if worker is None or task_id is None:
        return
    try:
        entry = Error(attempt=0, code=InvalidRequest.code, message=why)
        if worker.links.journal.end_unclaimed(task_id, entry, worker.claims.nonce(task_id)) == "ended":
            worker.store_failure(task_id, InvalidRequest(why))
    except Exception:
        # On the consumer's thread, for a message that is nobody's request: whatever it is, the worker goes on.
        logger.exception("the readers of %s could not be told", task_id)
