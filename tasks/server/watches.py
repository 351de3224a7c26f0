"""The watches of one thread by their channels, and which of them are to be read now."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.server.watch import Watch

#: The shortest interval at which all watches are looked through for those that are due.
TICK_S = 0.1
#: The shortest interval at which a reader gets news. To wake its thread costs as much as to parse and order ten tokens.
WAKE_S = 0.01


class Watches:
    """The watches of one subscription.

    Attributes:
        urgent: to be read at once.
        touched: have something to deliver, perhaps.
        used_at: when the last watch of all was closed.
    """

    def __init__(self) -> None:
        self.urgent: set[Watch] = set()
        self.touched: set[Watch] = set()
        self.used_at = time.monotonic()
        self._by_channel: dict[bytes, list[Watch]] = {}
        self._unconfirmed: Counter[bytes] = Counter()
        self._look_at = 0.0

    def __bool__(self) -> bool:
        return bool(self._by_channel)

    def __iter__(self) -> Iterator[Watch]:
        return (watch for watches in list(self._by_channel.values()) for watch in list(watches))

    def __contains__(self, channel: bytes) -> bool:
        return channel in self._by_channel

    @property
    def channels(self) -> list[bytes]:
        """All that are followed."""
        return list(self._by_channel)

    def open(self, watch: Watch, opened: list[bytes]) -> None:
        """Add a watch, and its channel to those that have to be subscribed where it is the first."""
        others = self._by_channel.setdefault(watch.channel, [])
        if others and not self._unconfirmed[watch.channel] and watch.channel not in opened:
            self.urgent.add(watch)
        elif not others:
            opened.append(watch.channel)
        others.append(watch)

    def close(self, watch: Watch) -> bool:
        """Forget a watch; whether it was its channel's last."""
        self.urgent.discard(watch)
        self.touched.discard(watch)
        watches = self._by_channel.get(watch.channel, [])
        if watch in watches:
            watches.remove(watch)
            if not watches:
                del self._by_channel[watch.channel]
                self.used_at = time.monotonic()
                return True
        return False

    def clear(self) -> None:
        """Forget all."""
        self._by_channel.clear()
        self.urgent.clear()
        self.touched.clear()
        self.used_at = time.monotonic()

    def subscribe(self, channels: list[bytes]) -> None:
        """Note that these were asked for, and are not confirmed yet."""
        self._unconfirmed.update(channels)

    def disconnect(self) -> None:
        """Note that nothing is confirmed any more, and that Redis may come back older than it was."""
        self._unconfirmed.clear()
        for watch in self:
            watch.forget()

    def confirm(self, channel: bytes) -> None:
        """Read for the watches of a channel that is heard from now on. Before that, something could fall in between."""
        self._unconfirmed[channel] -= 1
        if self._unconfirmed[channel] <= 0:
            del self._unconfirmed[channel]
            self.urgent.update(self._by_channel.get(channel, ()))

    def publish(self, channel: bytes, payload: bytes, now: float) -> None:
        """Give a publication to all watches of its channel."""
        watches = [watch for watch in self._by_channel.get(channel, ()) if not watch.is_done]
        if not watches or (news := watches[0].decode(payload)) is None:
            return
        for watch in watches:
            watch.hear(news, now)
            self.touched.add(watch)
            if watch.due_at <= now:
                self.urgent.add(watch)

    def take_due(self, now: float) -> list[Watch]:
        """Those that are to be read now."""
        due, self.urgent = self.urgent, set()
        if now >= self._look_at:
            self._look_at = now + TICK_S
            due.update(watch for watch in self if watch.due_at <= now)
        return list(due)

    def deliver(self, now: float) -> None:
        """Make touched watches hand over the publications that came together, unless those can wait for more."""
        touched, self.touched = self.touched, set()
        for watch in touched:
            if watch.can_wait and now < watch.delivered_at + WAKE_S:
                self.touched.add(watch)
            elif watch.deliver():
                watch.delivered_at = now

    def rest_s(self, now: float) -> float:
        """Return for how long there is nothing to deliver, and nobody to look for."""
        return max(0.0, min((watch.delivered_at + WAKE_S - now for watch in self.touched), default=TICK_S))
