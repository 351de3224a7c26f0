"""Celery's loop and pool, as a worker sees them."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from celery.worker import state

if TYPE_CHECKING:
    from celery.worker.consumer import Consumer

    from tasks.broker.channel.holding import Holding


class CeleryLoop:
    """Celery makes its consumer after the worker's parts, and calls :meth:`attach` once that is connected."""

    def __init__(self) -> None:
        self._consumer: Consumer | None = None
        self._holding: Holding | None = None

    def attach(self, consumer: Consumer, holding: Holding) -> None:
        """Take this consumer from now on, and the messages that its channels hold."""
        self._consumer, self._holding = consumer, holding

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

    def _refetch(self) -> None:
        channel = self._channel()
        if channel is not None:
            channel.refetch()

    def _channel(self) -> Any:
        """The consumer's channel; ``None`` while it is not connected."""
        tasks = self._consumer.task_consumer if self._consumer is not None else None
        return tasks.channel if tasks is not None else None
