"""One caller's wait for results: those of a task, of a group, or of groups in a group.

Celery's own wait listens to one connection under a lock, and counts a group's members with promises that several threads
fulfil: what is published while nobody is subscribed, or into a connection that died, is never heard of, and a count that two
threads raise at once is never complete. Here each caller has watches of its own, and looks at its members themselves.
"""

from __future__ import annotations

import math
import time
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Self

from celery import states
from celery.exceptions import TimeoutError as CeleryTimeoutError

from tasks.broker.waiting.before import leaves, lost_of
from tasks.broker.waiting.result_watch import unknown
from tasks.errors import StreamTimeout, UnknownRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tasks.broker.waiting.result_consumer import ResultConsumer
    from tasks.broker.waiting.result_watch import ResultWatch

#: The interval at which the caller's ``on_interval`` is called.
INTERVAL_S = 1.0
#: The longest that the first look may take: a stored result is given even with ``timeout=0``.
FIRST_LOOK_S = 1.0
#: A result of Celery's own class, as of a restored group, may be that of any task: it is called unknown only after it was known.
UNLESS_KNOWN_S = math.inf


class ResultTimeout(StreamTimeout, CeleryTimeoutError):
    """``get(timeout=...)`` is over; the request itself goes on. It is what Celery raises, and what ``stream()`` does."""


class Wait:
    """A context manager; within it :meth:`step` is called until :attr:`waiting` is empty.

    Args:
        consumer: where results are.
        result: the result to wait for.
        on_message: told once of each state that is stored and seen.

    Attributes:
        waiting: the results that have not come.
    """

    def __init__(
        self,
        consumer: ResultConsumer,
        result: Any,
        timeout: float | None,
        on_message: Callable[[dict[str, Any]], None] | None,
    ) -> None:
        self.waiting = {id(leaf): leaf for leaf in leaves(result) if not has_come(leaf)}
        self._consumer = consumer
        self._timeout = timeout
        self._on_message = on_message
        self._began_at = time.monotonic()
        self._news: SimpleQueue[ResultWatch] = SimpleQueue()
        self._watches: dict[str, ResultWatch] = {}
        self._taken: dict[str, bytes] = {}
        self._lost: dict[str, str | None] = {}

    def __enter__(self) -> Self:
        for leaf in self.waiting.values():
            self._watch(leaf.id, getattr(leaf, "unknown_after_s", UNLESS_KNOWN_S))
        # Results that somebody wants to be called back for are heard of while anybody waits, as with Celery.
        for task_id in self._consumer.unwatched():
            self._watch(task_id)
        return self

    def __exit__(self, *_: object) -> None:
        for watch in self._watches.values():
            watch.close()
        self._consumer.leave(self._watches)

    def step(self) -> None:
        """Take the results that come within the next :data:`INTERVAL_S`.

        Raises:
            ResultTimeout: the time is over.
            UnknownRequest: nobody knows a request that is waited for.
            BrokerUnavailable: Redis cannot be reached, for too long, or refuses this client.
        """
        for watch in self._come():
            self._take(watch)
        self.waiting = {key: leaf for key, leaf in self.waiting.items() if not has_come(leaf)}
        for leaf in self.waiting.values():
            self._raise_error(leaf)
        if self.waiting and self._left_s() <= 0 and not self._is_first_look():
            raise ResultTimeout(self._what_is_known())

    def _come(self) -> Iterator[ResultWatch]:
        left_s = FIRST_LOOK_S if self._is_first_look() else max(0.0, self._left_s())
        try:
            yield self._news.get(timeout=min(INTERVAL_S, left_s))
            while True:
                yield self._news.get_nowait()
        except Empty:
            return

    def _take(self, watch: ResultWatch) -> None:
        """Take what is stored now, once: where the caller is slow, two pieces of news lead to the same state."""
        if watch.payload is None or watch.payload is self._taken.get(watch.task_id):
            return
        self._taken[watch.task_id] = watch.payload
        if self._on_message is not None:
            self._on_message(self._consumer.decode(watch.payload))
        self._consumer.give(
            watch.task_id, watch.payload, [leaf for leaf in self.waiting.values() if leaf.id == watch.task_id]
        )

    def _raise_error(self, leaf: Any) -> None:
        watch = self._watches[leaf.id]
        error = watch.error
        if error is None:
            return
        if isinstance(error, UnknownRequest):
            pending = self._consumer.pending_before(leaf)
            if pending:  # the next link of a chain, or a chord's body, which a worker will send
                self._expect(leaf, pending)
                return
            if self._consumer.is_expected(leaf.id):
                watch.expect(is_known=True)
                return
        raise error

    def _expect(self, leaf: Any, pending: Iterable[Any]) -> None:
        """Continue the wait for a result that comes after these, unless Redis has lost one of these at two looks in a row.

        Raises:
            UnknownRequest: it has.
        """
        lost = lost_of(pending)
        if lost is not None and self._lost.get(leaf.id) == lost:
            raise UnknownRequest(unknown(lost, was_known=True))
        self._lost[leaf.id] = lost
        self._watches[leaf.id].expect(is_known=lost is None)

    def _watch(self, task_id: str, unknown_after_s: float = 0.0) -> None:
        if task_id not in self._watches:
            self._watches[task_id] = self._consumer.watch(task_id, self._news.put, unknown_after_s)

    def _left_s(self) -> float:
        return INTERVAL_S if self._timeout is None else self._began_at + self._timeout - time.monotonic()

    def _is_first_look(self) -> bool:
        """Return whether a result may still be on its way."""
        if time.monotonic() - self._began_at > FIRST_LOOK_S:
            return False
        watches = [self._watches[leaf.id] for leaf in self.waiting.values()]
        return any(not watch.reads and not watch.problem for watch in watches)

    def _what_is_known(self) -> str:
        leaf = next(iter(self.waiting.values()))
        more = f" ({len(self.waiting) - 1} more are waited for)" if len(self.waiting) > 1 else ""
        problem = self._watches[leaf.id].problem
        if problem:
            known = f"Redis cannot be reached ({problem})"
        elif not self._watches[leaf.id].reads:
            known = "Redis has not answered yet"
        else:
            known = leaf.what_is_known() if hasattr(leaf, "what_is_known") else "no result is stored"
        return f"request {leaf.id}: timeout={self._timeout:g} s is over: {known}{more}"


def has_come(result: Any) -> bool:
    """Whether a result is known to its object; that of a task whose result nobody stores is."""
    return all(leaf.ignored or bool(leaf._cache) for leaf in leaves(result))


def meta_of(result: Any) -> Any:
    """Return the state of a group's member: a result's metadata, or an inner group's results."""
    parts = getattr(result, "results", None)
    return parts if parts is not None else result._cache or {"status": states.SUCCESS, "result": None}
