"""The one thread of a process that listens to Redis for all its readers, whether they block or use asyncio."""

from __future__ import annotations

import os
import random
import selectors
import socket
import threading
import time
from collections import Counter, deque
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import redis

from tasks.client.chunks import Assembly, Outcome
from tasks.errors import BrokerUnavailable, GenerationError
from tasks.messages.journal import decode
from tasks.server import keys
from tasks.server.connection import connect, translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tasks.server.connection import Endpoint

Item = TypeVar("Item")

#: A stream that is not there at the first look is looked for again soon: it may have expired, then its result is stored.
SECOND_LOOK_S = 0.05
#: A stream is read again after so much silence, growing while nothing comes of it (pub/sub is at most once).
QUIET_S, LONGEST_QUIET_S = 1.0, 5.0
#: A connection that was silent for so long is asked for a sign of life, and given up without one.
PING_AFTER_S, PONG_WITHIN_S = 10.0, 5.0
LONGEST_BACKOFF_S = 2.0
IDLE_S = 30.0
TICK_S = 0.1
ENTRIES_AT_ONCE = 1_000
STREAMS_AT_ONCE = 200
MESSAGES_AT_ONCE = 1_000


@dataclass(slots=True, frozen=True)
class Quiet:
    """The stream was read and held nothing new, or could not be read, because of ``problem``.

    ``asked``: it was read after :meth:`Watch.read_again`.
    """

    asked: bool = False
    problem: str = ""


Event: TypeAlias = Outcome | Quiet | GenerationError


class Watch:
    """One reader's place in one stream. Everything but ``close`` and ``read_again`` belongs to the subscription's thread."""

    def __init__(self, subscription: Subscription, task_id: str, sink: Callable[[list[Event]], None]) -> None:
        self.stream = keys.stream(task_id)
        self.channel = self.stream.encode()
        self.assembly = Assembly()
        self.events: list[Event] = []
        self.last_id: str | None = None
        self.whole = True
        self.reads = 0
        self.asked = False
        self.quiet_s = QUIET_S
        self.due_at = float("inf")
        self._subscription = subscription
        self._sink = sink

    def close(self) -> None:
        """Stop listening."""
        self._subscription.ask("close", self)

    def read_again(self) -> None:
        """Read the stream now, whatever the channel says; :class:`Quiet` answers where nothing is new."""
        self._subscription.ask("read", self)

    def hear(self, entry: Any, now: float) -> None:
        """Take what was published."""
        self._keep(self.assembly.hear(entry))
        self.quiet_s = QUIET_S
        self.due_at = now if self.assembly.gap else now + self.quiet_s

    def read(self, entries: Sequence[Any], newest: bytes | None, now: float) -> None:
        """Take what the stream holds after ``last_id``; ``newest`` is its last entry's id, ``None`` if it is missing."""
        self.reads += 1
        self.assembly.gap = False
        before = len(self.events)
        for _, fields in entries:
            entry = decode(fields.get(b"d", b""))
            if entry is not None:
                self._keep(self.assembly.read(entry, whole=self.whole))
        if entries:
            self.last_id = entries[-1][0].decode()
        if len(entries) == ENTRIES_AT_ONCE:
            self.due_at = now
        elif self.assembly.gap or self._was_rewritten(newest):
            self.last_id, self.whole, self.due_at = None, True, now
        else:
            self.whole = self.last_id is None
            self._rest(news=len(self.events) > before, now=now)

    def fail(self, event: GenerationError | Quiet) -> None:
        """Tell the reader what is wrong."""
        self.events.append(event)
        if isinstance(event, GenerationError):
            self.due_at = float("inf")

    def deliver(self) -> None:
        """Hand over what has come together."""
        if self.events:
            events, self.events = self.events, []
            self._sink(events)

    def _keep(self, outcome: Outcome | None) -> None:
        if outcome is not None:
            self.events.append(outcome)

    def _was_rewritten(self, newest: bytes | None) -> bool:
        """Whether this is another stream than the one that was read: Redis had lost it."""
        if self.last_id is None:
            return False
        return newest is None or _order(newest) < _order(self.last_id.encode())

    def _rest(self, *, news: bool, now: float) -> None:
        if news:
            self.quiet_s = QUIET_S
        elif self.reads == 1 and not self.asked:
            self.due_at = now + SECOND_LOOK_S
            return
        else:
            self.events.append(Quiet(asked=self.asked))
        self.due_at = now + self.quiet_s
        self.quiet_s = min(self.quiet_s * 1.5, LONGEST_QUIET_S)


class Subscription:
    """Follows any number of streams over one subscribed connection and one for reading, on one daemon thread.

    It connects again by itself, with jitter, and then reads every stream from where its reader stood. The thread ends
    when nobody has listened for ``idle_s``. Made by :func:`watch`.
    """

    def __init__(self, where: Endpoint, idle_s: float) -> None:
        self._where = where
        self._idle_s = idle_s
        self._asked: deque[tuple[str, Watch]] = deque()
        self._watches: dict[bytes, list[Watch]] = {}
        self._unconfirmed: Counter[bytes] = Counter()
        self._urgent: set[Watch] = set()
        self._touched: set[Watch] = set()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._heard_at = self._used_at = time.monotonic()
        self._pinged_at = self._look_at = 0.0
        self.thread = threading.Thread(target=self._run, name="celery-mlx-reader", daemon=True)

    def ask(self, what: str, watch: Watch) -> None:
        """Have the thread ``open``, ``read`` or ``close`` a watch; from any thread."""
        self._asked.append((what, watch))
        with suppress(OSError):  # full: the thread will wake anyway; closed: it has ended, and so has the watch
            self._wake_writer.send(b"w")

    def _run(self) -> None:
        try:
            self._connect_and_serve()
        finally:
            self._wake_reader.close()
            self._wake_writer.close()
            # Nobody may wait for a thread that is gone, whatever ended it.
            self._deregister()
            self._fail(BrokerUnavailable(f"{self._where}: the thread that read journals has ended; read again"))

    def _connect_and_serve(self) -> None:
        failures = 0
        while not self._retire():
            try:
                with closing(connect(self._where)) as client, _connected(client) as connection:
                    failures = 0
                    self._serve(connection, client)
            except (redis.ResponseError, redis.AuthenticationError) as error:
                self._fail(BrokerUnavailable(f"{self._where} refuses to let this client read journals ({error})"))
            except (redis.RedisError, OSError) as error:
                failures += 1
                self._pause(failures, f"{self._where}: {error}")

    def _serve(self, connection: Any, client: redis.Redis) -> None:
        """Listen and read until nobody has listened for a while; an error of the connection ends it too."""
        self._heard_at, self._pinged_at = time.monotonic(), 0.0
        self._unconfirmed.clear()
        self._subscribe(connection, list(self._watches))
        with selectors.DefaultSelector() as selector:
            # redis-py has no other way to wait for its socket and something else at once; kombu does the same.
            selector.register(connection._sock, selectors.EVENT_READ)
            selector.register(self._wake_reader, selectors.EVENT_READ)
            while not self._is_idle():
                self._do_what_was_asked(connection)
                more = self._hear(connection)
                self._read_streams(client)
                self._deliver()
                self._check_pulse(connection)
                if not more and not self._asked and not self._urgent:
                    selector.select(TICK_S)

    def _do_what_was_asked(self, connection: Any) -> None:
        opened: list[bytes] = []
        closed: list[bytes] = []
        self._clear_wake()
        while self._asked:
            what, watch = self._asked.popleft()
            if what == "open":
                self._open(watch, opened)
            elif what == "read":
                watch.asked = True
                self._urgent.add(watch)
            elif self._close(watch):
                closed.append(watch.channel)
        # In this order, and only what is still so: a channel may have been left and entered in one go.
        gone = [channel for channel in dict.fromkeys(closed) if channel not in self._watches]
        if gone:
            connection.send_command("UNSUBSCRIBE", *gone)
        self._subscribe(connection, [channel for channel in dict.fromkeys(opened) if channel in self._watches])

    def _open(self, watch: Watch, opened: list[bytes]) -> None:
        others = self._watches.setdefault(watch.channel, [])
        if others and not self._unconfirmed[watch.channel] and watch.channel not in opened:
            self._urgent.add(watch)
        elif not others:
            opened.append(watch.channel)
        others.append(watch)

    def _close(self, watch: Watch) -> bool:
        """Forget a watch; whether it was its channel's last."""
        self._urgent.discard(watch)
        self._touched.discard(watch)
        watches = self._watches.get(watch.channel, [])
        if watch in watches:
            watches.remove(watch)
            if not watches:
                del self._watches[watch.channel]
                self._used_at = time.monotonic()
                return True
        return False

    def _subscribe(self, connection: Any, channels: Sequence[bytes]) -> None:
        for batch in _batches(channels, STREAMS_AT_ONCE):
            connection.send_command("SUBSCRIBE", *batch)
            self._unconfirmed.update(batch)

    def _hear(self, connection: Any) -> bool:
        """Take what was published; whether there may be more."""
        for _ in range(MESSAGES_AT_ONCE):
            if not connection.can_read(timeout=0):
                return False
            message = connection.read_response(disable_decoding=True)
            self._heard_at, self._pinged_at = time.monotonic(), 0.0
            if isinstance(message, list) and message[0] == b"message":
                self._publish(message[1], message[2])
            elif isinstance(message, list) and message[0] == b"subscribe":
                self._confirm(message[1])
        return True

    def _publish(self, channel: bytes, payload: bytes) -> None:
        watches = self._watches.get(channel)
        if not watches or (entry := decode(payload)) is None:
            return
        for watch in watches:
            watch.hear(entry, self._heard_at)
            self._touched.add(watch)
            if watch.assembly.gap:
                self._urgent.add(watch)

    def _confirm(self, channel: bytes) -> None:
        """Read the streams of a channel that is heard from now on. Before that, an entry could fall in between."""
        self._unconfirmed[channel] -= 1
        if self._unconfirmed[channel] <= 0:
            del self._unconfirmed[channel]
            self._urgent.update(self._watches.get(channel, ()))

    def _read_streams(self, client: redis.Redis) -> None:
        now = time.monotonic()
        due, self._urgent = self._urgent, set()
        if now >= self._look_at:
            self._look_at = now + TICK_S
            due.update(watch for watches in self._watches.values() for watch in watches if watch.due_at <= now)
        for batch in _batches(list(due), STREAMS_AT_ONCE):
            pipeline = client.pipeline(transaction=False)
            for watch in batch:
                pipeline.xrange(watch.stream, min=f"({watch.last_id}" if watch.last_id else "-", count=ENTRIES_AT_ONCE)
                pipeline.xrevrange(watch.stream, count=1)
            replies = pipeline.execute(raise_on_error=False)
            for watch, entries, newest in zip(batch, replies[::2], replies[1::2], strict=True):
                self._take_reply(watch, entries, newest)

    def _take_reply(self, watch: Watch, entries: Any, newest: Any) -> None:
        self._touched.add(watch)
        try:
            with translated(f"reading {watch.stream}"):
                for reply in (entries, newest):
                    if isinstance(reply, Exception):
                        raise reply
        except GenerationError as error:
            watch.fail(error)
            return
        now = time.monotonic()
        watch.read(entries, newest[0][0] if newest else None, now)
        if watch.due_at <= now:
            self._urgent.add(watch)

    def _deliver(self) -> None:
        touched, self._touched = self._touched, set()
        for watch in touched:
            watch.deliver()

    def _check_pulse(self, connection: Any) -> None:
        """Notice a connection that died without a word, as behind a router that was switched off."""
        now = time.monotonic()
        if self._pinged_at and now - self._pinged_at > PONG_WITHIN_S:
            raise redis.ConnectionError(f"no answer to PING within {PONG_WITHIN_S:g} s")
        if not self._pinged_at and now - self._heard_at > PING_AFTER_S:
            connection.send_command("PING")
            self._pinged_at = now

    def _pause(self, failures: int, problem: str) -> None:
        """Tell the readers, and wait before the next try: longer each time, and never in step with other processes."""
        for watch in self._all():
            watch.fail(Quiet(problem=problem))
            watch.deliver()
        time.sleep(random.uniform(0, min(LONGEST_BACKOFF_S, 0.05 * 2**failures)))
        self._take_in_what_was_asked()

    def _fail(self, error: GenerationError) -> None:
        self._take_in_what_was_asked()
        for watch in self._all():
            watch.fail(error)
            watch.deliver()
        self._watches.clear()

    def _take_in_what_was_asked(self) -> None:
        """Open and close watches while there is no connection; all are subscribed once there is one."""
        while self._asked:
            what, watch = self._asked.popleft()
            if what == "open":
                self._open(watch, [])
            elif what == "close":
                self._close(watch)

    def _all(self) -> list[Watch]:
        return [watch for watches in self._watches.values() for watch in watches]

    def _clear_wake(self) -> None:
        with suppress(BlockingIOError):
            while self._wake_reader.recv(4_096):
                pass

    def _is_idle(self) -> bool:
        return not self._watches and not self._asked and time.monotonic() - self._used_at > self._idle_s

    def _retire(self) -> bool:
        """Whether this subscription is over; then nobody finds it any more."""
        with _lock:
            if self._is_idle():
                _subscriptions.pop(self._where, None)
                return True
            return False

    def _deregister(self) -> None:
        with _lock:
            if _subscriptions.get(self._where) is self:
                del _subscriptions[self._where]


_subscriptions: dict[Endpoint, Subscription] = {}
_lock = threading.Lock()


def watch(where: Endpoint, task_id: str, sink: Callable[[list[Event]], None]) -> Watch:
    """Follow one request's stream from its start. ``sink`` is called on another thread, and must not block."""
    with _lock:
        found = _subscriptions.get(where)
        if found is None:
            found = _subscriptions[where] = Subscription(where, IDLE_S)
            found.thread.start()
        place = Watch(found, task_id, sink)
        found.ask("open", place)
    return place


def _forget() -> None:
    """Threads do not survive a fork: a child makes subscriptions of its own."""
    global _lock  # noqa: PLW0603  (the lock may have been held at the moment of the fork)
    _lock = threading.Lock()
    _subscriptions.clear()


os.register_at_fork(after_in_child=_forget)


@contextmanager
def _connected(client: redis.Redis) -> Iterator[Any]:
    connection: Any = client.connection_pool.make_connection()
    try:
        connection.connect()
        yield connection
    finally:
        connection.disconnect()


def _batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _order(entry_id: bytes) -> tuple[int, int]:
    attempt, _, n = entry_id.partition(b"-")
    return int(attempt), int(n)
