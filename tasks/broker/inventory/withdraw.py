"""Withdrawing requests: those that wait are taken out of their queues, those that run are cancelled."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from tasks.broker.queues.queues import SEPARATOR
from tasks.broker.queues.references import with_references
from tasks.broker.submission.sending import pool_free_control
from tasks.journal.writer import mark_cancelled
from tasks.server import keys
from tasks.server.connection import connect, translated
from tasks.server.script import Script

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery import Celery

WITHDRAW = Script(with_references("withdraw"))
#: Ids in one call of the script, and in one broadcast.
PAGE = 100


def withdraw(app: Celery, task_ids: Sequence[str]) -> None:
    """Take requests back that were just sent, the newest first. One that waits has never been; one that runs is cancelled.

    Raises:
        BrokerUnavailable: Redis cannot be reached, or refuses this client.
    """
    newest_first = list(reversed(task_ids))
    with closing(connect(app)) as client:
        for start in range(0, len(newest_first), PAGE):
            page = newest_first[start : start + PAGE]
            with translated(f"taking back {len(page)} requests"):
                left = [
                    task_id.decode()
                    for task_id in WITHDRAW(
                        client, (keys.LEDGER,), (keys.scheduled(""), SEPARATOR, keys.request(""), *page)
                    )
                ]
            for task_id in left:
                mark_cancelled(client, task_id, running=True)
            if left:
                with app.connection_for_write() as own:
                    pool_free_control(app).broadcast("revoke", {"task_id": left, "terminate": True}, connection=own)
