"""The application ``tasks``, whose worker ends itself with SIGKILL at a point that its environment names: for tests of what
becomes of a request at just that moment."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

from celery import signals

from tasks.broker.results import Backend
from tasks.celery import app
from tasks.journal.writer import Journal
from tasks.messages.journal import Token, decode
from tasks.worker.attempts import publisher

if TYPE_CHECKING:
    from collections.abc import Callable

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


@signals.worker_init.connect
def _prepare(**_: Any) -> None:
    if POINT == "claimed":
        Journal.claim = _after(Journal.claim)  # type: ignore[method-assign]
    elif POINT == "ended":
        Backend._store_result = _before(Backend._store_result)  # type: ignore[method-assign]
    elif POINT == "answered":
        Backend._store_result = _after(Backend._store_result)  # type: ignore[method-assign]
    elif POINT == "half":
        # What has come of a character, or of a stop string, is in the journal as a token without text.
        append = Journal.append

        def die_halfway(self: Journal, batch: Any) -> Any:
            entries = [decode(item.payload) for item in batch]
            halves = [isinstance(each, Token) and bool(each.ids) and not each.text for each in entries]
            if True not in halves:
                return append(self, batch)
            append(self, batch[: halves.index(True) + 1])
            return _die()

        Journal.append = die_halfway  # type: ignore[method-assign]
        publisher._coalesce = lambda entries: entries  # on a busy machine the half would be joined with what follows it
