"""Takes a worker out of service: running requests end, or are requeued."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.worker.queues.room import Room

logger = logging.getLogger(__name__)

#: How long requests that were told to stop may take to do so, once the drain's time is over.
REQUEUE_S = 10.0
POLL_S = 0.05
#: The longest that a fetch which is out can stay so in a closed room: kombu's ``brpop_timeout`` is 1 s.
FETCH_S = 2.0


class Loop(Protocol):
    """The acts of a worker on Celery's loop and pool, once it consumes."""

    def requeue_all(self) -> None:
        """Stop every running request, and requeue it."""

    def fetching(self) -> bool:
        """Whether a fetch is out, which may still bring a message."""

    def end_fetch(self, timeout_s: float) -> None:
        """Have the fetch that is out bring nothing that is sent from now on; wait for that no longer than this."""

    def exit(self, status: int) -> None:
        """Begin Celery's own shutdown, with this exit status."""

    def abort(self) -> None:
        """End the process as it is."""


class Drain:
    """Takes a worker out of service.

    Args:
        room: is closed, and counts the running requests.
        loop: Celery's.
        timeout_s: how long running requests may take, before they are requeued.
        on_change: called when it begins, and when it is over.
        end_engines: ends the engines, one of which may hang.
        requeue_s: how long requests that were told to stop may take to do so.
        fetch_s: how long a fetch that is out may take to return.
    """

    def __init__(
        self,
        room: Room,
        loop: Loop,
        timeout_s: float,
        on_change: Callable[[], None],
        end_engines: Callable[[], None],
        requeue_s: float = REQUEUE_S,
        fetch_s: float = FETCH_S,
    ) -> None:
        self._room = room
        self._loop = loop
        self._timeout_s = timeout_s
        self._on_change = on_change
        self._end_engines = end_engines
        self._requeue_s, self._fetch_s = requeue_s, fetch_s
        #: ``_closes``: the room stays closed. ``_is_on``: it is, and no fetch of before brings what is sent from now on.
        self._closes = self._is_on = False
        self._leaving = threading.Event()
        self._hurry = threading.Event()

    @property
    def reason(self) -> str:
        """Why the worker takes no requests; empty while it does."""
        if not self._is_on:
            return ""
        return "told to stop" if self._leaving.is_set() else "told to take nothing more"

    def begin(self) -> None:
        """Take nothing more; everything else goes on. A request that is sent after the worker said so is not taken."""
        self._closes = True
        self._room.close()
        try:
            self._loop.end_fetch(0.0 if self._hurry.is_set() else self._fetch_s)
        finally:  # a Redis that cannot be asked brings nothing either
            self._is_on = True
            self._on_change()

    def end(self) -> None:
        """Take requests again, unless the worker is stopping."""
        if not self._leaving.is_set():
            self._closes = self._is_on = False
            self._room.reopen()
            self._on_change()

    def leave(self, status: int = os.EX_OK) -> None:
        """Drain, then end Celery's loop, with this exit status; a second call requeues the running requests. Returns at once.

        Celery stops its consumer, and with it remote control, heartbeats and acknowledgements, before its pool, so its own
        shutdown begins only when nothing runs any more. For a signal's handler, which may have interrupted a thread that holds a
        lock, so all else happens on a thread of its own.
        """
        if self._leaving.is_set():
            self._hurry.set()
            return
        self._leaving.set()
        threading.Thread(target=self._leave, args=(status,), name="drain", daemon=True).start()

    def leave_now(self) -> None:
        """Leave, and do not wait for running requests."""
        self.leave()
        self._hurry.set()

    def requeue_all(self) -> bool:
        """Requeue the running requests, and wait for that; ``False`` if it takes too long."""
        self._loop.end_fetch(self._fetch_s)  # it would take a requeued request
        if self._room.busy():
            logger.warning("giving %d requests back to their queues", sum(self._room.busy().values()))
            self._loop.requeue_all()
        return self._room.wait_idle(self._requeue_s)

    def start_over(self) -> None:
        """Requeue all that runs, however long it takes. Nothing is taken meanwhile, or what comes would let it never end."""
        self._room.close()
        while not self.requeue_all():
            logger.warning("requests of before are still being stopped: %s", self._room.busy())
        self._room.reopen()
        if self._closes:
            self._room.close()

    def _leave(self, status: int) -> None:
        self.begin()
        deadline = time.monotonic() + self._timeout_s
        while time.monotonic() < deadline and not self._hurry.is_set():
            if self._room.wait_idle(POLL_S) and not self._loop.fetching():
                break
        if not self.requeue_all():
            self._abandon()
        self._loop.exit(status)

    def _abandon(self) -> None:
        """End the engines; the whole process, if it is Redis that does not answer."""
        self._end_engines()
        if not self._room.wait_idle(self._fetch_s):
            logger.error(
                "%d requests cannot be given back; the sweep will give them to others", sum(self._room.busy().values())
            )
            self._loop.abort()
