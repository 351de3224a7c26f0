"""Celery's loop and pool, as a worker sees them."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from celery.worker import state

if TYPE_CHECKING:
    from celery.worker.consumer import Consumer

    from tasks.broker.channel.holding import Holding


#: The time between two looks at a fetch that is out.
POLL_S = 0.02


class CeleryLoop:
    """Celery makes its consumer after the worker's parts, and calls :meth:`attach` once that is connected."""

    def __init__(self) -> None:
        self._consumer: Consumer | None = None
        self._holding: Holding | None = None
        self._thread_id: int | None = None

    def attach(self, consumer: Consumer, holding: Holding) -> None:
        """Take this consumer from now on, and the messages that its channels hold. On the consumer's thread."""
        self._consumer, self._holding = consumer, holding
        self._thread_id = threading.get_ident()

    def requeue_all(self) -> None:
        """Stop every running request, and requeue it."""
        assert self._consumer is not None
        self._consumer.pool.requeue_all()

    def fetching(self) -> bool:
        """Whether a fetch is out, which may still bring a message."""
        channel = self._channel()
        return channel is not None and channel.fetching

    def exit(self, status: int) -> None:
        """Begin Celery's own shutdown, with this exit status."""
        assert self._consumer is not None
        assert self._holding is not None
        self._holding.stopping = True
        state.should_stop = status
        self._consumer.hub.call_soon(lambda: None)

    def abort(self) -> None:
        """End the process as it is."""
        logging.shutdown()
        os._exit(os.EX_TEMPFAIL)

    def refetch(self) -> None:
        """Room has changed: have the fetch that is out look again."""
        if self._consumer is not None:
            self._consumer.hub.call_soon(self._refetch)

    def end_fetch(self, timeout_s: float) -> None:
        """Have the fetch that is out bring nothing that is sent from now on, in a room that was closed before.

        The consumer's own thread ends it. Others wait until it has ended, at most so long: :meth:`refetch` has told the consumer.
        """
        if threading.get_ident() == self._thread_id:
            self._refetch()
            return
        ended_by = time.monotonic() + timeout_s
        while self.fetching() and time.monotonic() < ended_by:
            time.sleep(POLL_S)

    def _refetch(self) -> None:
        channel = self._channel()
        if channel is not None:
            channel.refetch()

    def _channel(self) -> Any:
        """The consumer's channel; ``None`` while it is not connected."""
        tasks = self._consumer.task_consumer if self._consumer is not None else None
        return tasks.channel if tasks is not None else None
