"""The application ``tasks``, whose worker stops to fetch after some messages: for tests of what notices that."""

from __future__ import annotations

from typing import Any

from celery import signals

from tasks.broker.channel.channel import Channel
from tasks.celery import app

__all__ = ["app"]

_fetch = Channel._brpop_start


def _fetch_twice(self: Channel, timeout: float | None = None) -> None:
    if self.holding.received < 2:
        _fetch(self, timeout)


@signals.worker_init.connect
def _become_deaf(**_: Any) -> None:
    Channel._brpop_start = _fetch_twice  # type: ignore[method-assign]
