"""The subscriptions of this process: one for each server that somebody reads from."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from tasks.server.subscription import Subscription

if TYPE_CHECKING:
    from tasks.server.connection import Endpoint
    from tasks.server.watch import Watch


class Subscriptions:
    """Finds a server's subscription, or starts it. It has the patience of the first reader."""

    def __init__(self) -> None:
        self._found: dict[Endpoint, Subscription] = {}
        self._contacts: set[Endpoint] = set()
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self._forget)

    def open(self, where: Endpoint, watch: Watch) -> None:
        """Follow from now on. The watch's methods are called on another thread, and must not block."""
        with self._lock:
            found = self._found.get(where)
            if found is None:
                found = Subscription(where, self._contacts, self._retires, self._deregister)
                self._found[where] = found
                found.thread.start()
            watch.belong(found.order)
            found.order("open", watch)

    def note_contact(self, where: Endpoint) -> None:
        """This process has reached the server: its readers wait for longer from now on."""
        self._contacts.add(where)

    def _retires(self, subscription: Subscription) -> bool:
        with self._lock:
            if subscription.is_idle():
                self._found.pop(subscription.where, None)
                return True
            return False

    def _deregister(self, subscription: Subscription) -> None:
        with self._lock:
            if self._found.get(subscription.where) is subscription:
                del self._found[subscription.where]

    def _forget(self) -> None:
        """Threads do not survive a fork, and the lock may have been held: a child makes subscriptions of its own."""
        self._lock = threading.Lock()
        self._found = {}


SUBSCRIPTIONS = Subscriptions()
