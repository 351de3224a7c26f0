"""Sends for programs that use asyncio, on a few threads, so that the event loop never waits for Redis.

Threads, and not a second way of sending through ``redis.asyncio``: kombu and Celery build a message, run their signals and send
it in one blocking call, which finds the server by way of TLS, Sentinel and ACLs. All of that would have to exist twice.
"""

from __future__ import annotations

import asyncio
import logging
import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar

from tasks.errors import GenerationError
from tasks.names import GENERATE

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(GENERATE)

Sent = TypeVar("Sent")

#: Requests that are sent at the same time. Each takes Redis about a millisecond; while Redis is silent the others wait here.
THREADS = 16


class Sender:
    """The threads of one task; they begin with the first request.

    Args:
        take_back: takes back a request whose caller has gone; it may block.
    """

    def __init__(self, take_back: Callable[[Any], None], threads: int = THREADS) -> None:
        self._take_back = take_back
        self._count = threads
        self._threads = self._new_threads()
        os.register_at_fork(after_in_child=self._forget)

    async def send(self, send: Callable[[], Sent]) -> Sent:
        """Return or raise as ``send`` does. If the caller is cancelled meanwhile, the request is taken back."""
        future = self._threads.submit(copy_context().run, send)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            # One that no thread has begun with is never sent.
            if not future.cancelled():
                self._threads.submit(self._undo, future)
            raise

    def _new_threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._count, thread_name_prefix="celery-mlx-sender")

    def _forget(self) -> None:
        """Threads do not survive a fork: without its own, a child would wait for those of its parent."""
        self._threads = self._new_threads()

    def _undo(self, future: Future[Sent]) -> None:
        if future.exception() is not None:
            return
        try:
            self._take_back(future.result())
        except GenerationError as error:
            logger.warning("a request whose caller was cancelled could not be taken back: %s", error)
