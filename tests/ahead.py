"""The application ``tasks``, on a machine whose clock is an hour ahead of Redis's and of its producers'."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, tzinfo
from typing import Self

from celery import signals
from celery.worker import request

from tasks.celery import app

__all__ = ["app"]

HOUR_S = 3600.0
_time = time.time


class Ahead(datetime):
    """A date that thinks it is an hour later."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        """The wrong time."""
        return super().now(tz) + timedelta(seconds=HOUR_S)


@signals.worker_init.connect
def _put_the_clock_forward(**_: object) -> None:
    time.time = lambda: _time() + HOUR_S
    request.datetime = Ahead
