"""Scripts called by many threads, on one connection: calls that come while a reply is awaited go out together, as one send.

A worker's threads call Redis at about the same time. With a connection for each of them every call costs several switches
between threads, which cost more than the calls (84 switches and 2.5 ms of CPU for a request, measured with 32 in flight);
here most threads only wait for the thread that calls Redis. An uncontended call is sent immediately.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from copy import copy
from functools import cached_property
from typing import TYPE_CHECKING, Any

from redis.exceptions import ConnectionError, RedisError, ResponseError, TimeoutError  # noqa: A004

from tasks.server.connection import connect
from tasks.server.resp import pack
from tasks.server.trouble import is_busy
from tasks.server.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The most calls in one send, so that no reply waits for very many others.
MOST_CALLS = 64
BUSY_S = 10.0
BUSY_PAUSE_S = 0.1
#: A connection that was silent for so long is looked at before it is used.
CHECK_AFTER_S = 0.05


class AutoPipeline:
    """One connection for the scripts of all threads of a process: a client for :class:`tasks.server.script.Script`.

    A call is sent again, on a new connection, when the connection is lost before its reply: for scripts that may run twice.
    For others there is :attr:`once`. A call that Redis refuses, because somebody's script runs for too long, was not run: it is
    sent again after a pause.

    Args:
        source: a Celery app, a URL or an :class:`tasks.server.connection.Endpoint`.
        busy_s: after so long of such refusals Redis counts as away.
    """

    def __init__(self, source: Any, busy_s: float = BUSY_S) -> None:
        self._busy_s = busy_s
        self._wire = Wire(connect(source))
        self._lock = threading.Lock()
        self._waiting: deque[_Call] = deque()
        #: The call whose thread sends to Redis now, or is about to; ``None`` only while nothing waits.
        self._leader: _Call | None = None
        #: Sends and calls so far, for tests that count.
        self.sends = 0
        self.calls = 0

    def evalsha(self, digest: str, key_count: int, /, *keys_and_args: str | int) -> Any:
        """Call the script of this digest.

        Raises:
            redis.exceptions.RedisError: untranslated.
        """
        return self._call(("EVALSHA", digest, key_count, *keys_and_args))

    def script_load(self, source: str, /) -> Any:
        """Have the server know a script."""
        return self._call(("SCRIPT", "LOAD", source))

    @cached_property
    def once(self) -> Once:
        """The same, for scripts that must not run twice: a lost reply is an error of its caller."""
        return Once(self)

    def close(self) -> None:
        """Close the connection; a later call opens it again."""
        self._wire.disconnect()

    def _call(self, command: tuple[Any, ...], *, again: bool = True) -> Any:
        deadline = time.monotonic() + self._busy_s
        while True:
            try:
                return self._call_once(command, again)
            except ResponseError as error:
                if not is_busy(error):
                    raise
                if time.monotonic() > deadline:
                    raise ConnectionError(str(error)) from error
            time.sleep(BUSY_PAUSE_S)

    def _call_once(self, command: tuple[Any, ...], again: bool) -> Any:
        # Packed by its own thread, so that a value that cannot be packed is nobody else's error.
        call = _Call(pack(*command), again)
        with self._lock:
            self._waiting.append(call)
            self._leader = self._leader or call
            leads = self._leader is call
        try:
            if not leads:
                call.wait()
            if not call.done:
                self._speak(call)
        except BaseException:
            self._abandon(call)
            raise
        if isinstance(call.reply, BaseException):
            raise call.reply
        return call.reply

    def _speak(self, own: _Call) -> None:
        """Send the waiting calls, of which ``own`` is the first; the first of those that came meanwhile sends the next ones."""
        with self._lock:
            batch = [self._waiting.popleft() for _ in range(min(MOST_CALLS, len(self._waiting)))]
        replies: Sequence[Any] = [ConnectionError("the thread that spoke to Redis was interrupted")] * len(batch)
        try:
            replies = self._exchange(batch)
        except RedisError as error:
            replies = [copy(error) for _ in batch]  # each is raised on a thread of its own
        except BaseException:
            self._wire.disconnect()  # replies that nobody took are still to come on it
            raise
        finally:
            self._pass_on()
            for call, reply in zip(batch, replies, strict=True):
                call.reply, call.done = reply, True
                if call is not own:
                    call.wake()

    def _pass_on(self) -> None:
        with self._lock:
            self._leader = self._waiting[0] if self._waiting else None
            successor = self._leader
        if successor is not None:
            successor.wake()

    def _abandon(self, call: _Call) -> None:
        """A thread was interrupted while it waited, or before it spoke: nobody may wait for it."""
        with self._lock:
            if call in self._waiting:
                self._waiting.remove(call)
            leads = self._leader is call
        if leads:
            self._pass_on()

    def _exchange(self, batch: Sequence[_Call]) -> list[Any]:
        self.sends += 1
        self.calls += len(batch)
        # After a restart of Redis the first call would be lost with the old connection, and some may not be sent again.
        self._wire.drop_if_closed(CHECK_AFTER_S)
        try:
            return self._ask(batch)
        except (ConnectionError, TimeoutError) as error:
            self._wire.disconnect()
            lost = error
        again = [call for call in batch if call.again]
        try:
            replies = iter(self._ask(again) if again else [])
        except RedisError:
            self._wire.disconnect()
            raise
        return [next(replies) if call.again else copy(lost) for call in batch]

    def _ask(self, batch: Sequence[_Call]) -> list[Any]:
        return self._wire.ask(b"".join(call.packed for call in batch), len(batch))


class Once:
    """An :class:`AutoPipeline` for scripts that must not run twice."""

    def __init__(self, pipeline: AutoPipeline) -> None:
        self._pipeline = pipeline
        self.script_load = pipeline.script_load

    def evalsha(self, digest: str, key_count: int, /, *keys_and_args: str | int) -> Any:
        """Call the script of this digest.

        Raises:
            redis.exceptions.ConnectionError: it is not known whether it has run.
            redis.exceptions.RedisError: untranslated.
        """
        return self._pipeline._call(("EVALSHA", digest, key_count, *keys_and_args), again=False)


class _Call:
    """One command, and the thread that waits for its reply."""

    __slots__ = ("_turn", "again", "done", "packed", "reply")

    def __init__(self, packed: bytes, again: bool) -> None:
        self.packed = packed
        self.again = again
        self.done = False
        self.reply: Any = None
        self._turn = threading.Lock()
        self._turn.acquire()

    def wait(self) -> None:
        """Until :meth:`wake`."""
        self._turn.acquire()

    def wake(self) -> None:
        """Because there is a reply, or because it is this thread's turn to send."""
        self._turn.release()
