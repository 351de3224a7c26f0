"""The application ``tasks``, whose worker ends itself with SIGKILL at a point that its environment names: for tests of what
becomes of a request at just that moment."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any

from celery import signals

from tasks.broker.results import Backend
from tasks.celery import app
from tasks.journal.writer import Journal
from tasks.messages.journal import Token, decode
from tasks.worker.attempts import writing

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.journal.items import Append

__all__ = ["app"]

POINT = os.environ.get("TEST_DIE_AT", "")


def _die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _before(call: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*args: Any, **options: Any) -> Any:
        _die()
        return call(*args, **options)

    return wrapped


def _after(call: Callable[..., Any], ends: Callable[[Any], bool] = lambda _: True) -> Callable[..., Any]:
    def wrapped(*args: Any, **options: Any) -> Any:
        answer = call(*args, **options)
        if ends(answer):
            _die()
        return answer

    return wrapped


def _never(*_: Any, **__: Any) -> None:
    """Wait for the end: what was left out of a journal must not be in a result."""
    threading.Event().wait()


class _Halves:
    """Leaves out what follows the first half of a character, or of a stop string, in the answers of so many requests.

    What has come of either is in the journal as a token without text, behind one with text.
    """

    def __init__(self, requests: int) -> None:
        self._requests = requests
        self._said: set[str] = set()
        self._halved: set[str] = set()

    @property
    def complete(self) -> bool:
        return len(self._halved) == self._requests

    def take(self, item: Append) -> bool:
        entry = decode(item.payload)
        if item.task_id in self._halved:
            return False
        if isinstance(entry, Token) and entry.kind == "content" and entry.text:
            self._said.add(item.task_id)
        elif isinstance(entry, Token) and entry.ids and not entry.text and item.task_id in self._said:
            self._halved.add(item.task_id)
        return True


@signals.worker_init.connect
def _prepare(**_: Any) -> None:
    if POINT == "claimed":
        Journal.claim = _after(Journal.claim)  # type: ignore[method-assign]
    elif POINT == "ended":
        Backend._store_result = _before(Backend._store_result)  # type: ignore[method-assign]
    elif POINT == "answered":
        Backend._store_result = _after(Backend._store_result)  # type: ignore[method-assign]
    elif POINT == "half":
        append, halves = Journal.append, _Halves(int(os.environ.get("TEST_DIE_REQUESTS", "1")))

        def until_halves(self: Journal, batch: Any) -> Any:
            taken = [halves.take(item) for item in batch]
            statuses = iter(append(self, [item for item, is_taken in zip(batch, taken, strict=True) if is_taken]))
            if halves.complete:
                _die()
            return [next(statuses) if is_taken else "ok" for is_taken in taken]

        Journal.append = until_halves  # type: ignore[method-assign]
        Backend._store_result = _never  # type: ignore[method-assign]
        writing.coalesced = lambda entries: entries  # on a busy machine the half would be joined with what follows it
