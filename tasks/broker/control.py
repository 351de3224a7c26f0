"""Celery's remote control, which waits for no connection of a pool, and whose ``revoke`` reaches workers that start later."""

from __future__ import annotations

from contextlib import closing, nullcontext
from typing import TYPE_CHECKING, Any

from celery.app.control import Control as CeleryControl
from celery.utils.functional import maybe_list

from tasks.broker.queues.ledger import known
from tasks.broker.queues.schedule import hasten
from tasks.broker.submission.sending import pool_free_control, sending
from tasks.broker.transport import Transport
from tasks.errors import GenerationError
from tasks.journal.writer import mark_cancelled
from tasks.server.connection import connect
from tasks.server.trouble import is_away

if TYPE_CHECKING:
    from collections.abc import Iterable


#: Replies to a command are waited for until none has come for so long: Celery's own default.
REPLIES_WITHIN_S = 1.0


class Control(CeleryControl):
    """Celery's remote control. Its ways to revoke (``group.revoke()``, ``app.control.revoke()``, Flower) also mark requests."""

    def broadcast(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        destination: list[str] | None = None,
        connection: Any = None,
        *more: Any,
        **options: Any,
    ) -> Any:
        """Celery's, on the connection that is given, else on one of its own.

        A result's ``revoke(wait=True)`` hands on ``timeout=None``, with which Celery would wait for ever for one more reply. Here
        that means :data:`REPLIES_WITHIN_S`.
        """
        if options.get("timeout", 0) is None:
            options["timeout"] = REPLIES_WITHIN_S
        own = self.app.connection_for_write() if connection is None else nullcontext(connection)
        with own as free:
            return CeleryControl.broadcast(
                pool_free_control(self.app), command, arguments, destination, free, *more, **options
            )

    def revoke(self, task_id: Any, destination: Any = None, terminate: bool = False, *more: Any, **options: Any) -> Any:
        """Celery's, and a mark in Redis for those of these ids that are requests: workers that start later heard no broadcast.

        Raises:
            BrokerUnavailable: Redis cannot be reached, or refuses this client.
        """
        if not issubclass(self.app.connection_for_write().get_transport_cls(), Transport):
            return super().revoke(task_id, destination, terminate, *more, **options)
        if destination is None:
            self._mark(maybe_list(task_id), running=terminate)
        with sending(self.app):
            return super().revoke(task_id, destination, terminate, *more, **options)

    def _mark(self, task_ids: Iterable[str], *, running: bool) -> None:
        try:
            with closing(connect(self.app)) as client:
                requests = list(known(client, map(str, task_ids)))
                for task_id in requests:
                    mark_cancelled(client, task_id, running=running)
                hasten(client, requests)
        except GenerationError as error:
            # Without the right to do so, the broadcast does what can be done. For a silent Redis it would wait as long again.
            if error.__cause__ is not None and is_away(error.__cause__):
                raise
