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
from tasks.messages.journal import Token

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
    from tasks.worker.attempts.publisher import Publisher

    if POINT == "claimed":
        Journal.claim = _after(Journal.claim)  # type: ignore[method-assign]
    elif POINT == "ended":
        Backend._store_result = _before(Backend._store_result)  # type: ignore[method-assign]
    elif POINT == "answered":
        Backend._store_result = _after(Backend._store_result)  # type: ignore[method-assign]
    elif POINT == "half":
        # What has come of a character, or of a stop string, is in the journal as a token without text.
        settle = Publisher._settle

        def die_halfway(self: Publisher, flight: Any, entry: Any, status: Any) -> None:
            settle(self, flight, entry, status)
            if isinstance(entry, Token) and entry.ids and not entry.text:
                _die()

        Publisher._settle = die_halfway  # type: ignore[method-assign]
