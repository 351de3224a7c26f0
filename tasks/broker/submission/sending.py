"""Sends a producer's requests within a bound, and with one error where it cannot."""

from __future__ import annotations

from contextlib import contextmanager
from copy import copy
from typing import TYPE_CHECKING, Any

from kombu.exceptions import OperationalError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from tasks.errors import BrokerUnavailable
from tasks.server.connection import endpoint, translated
from tasks.server.trouble import is_away, trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def send_twice(send: Callable[[], Any], about: str) -> Any:
    """Send, and once more on a new connection. Kombu tries four times to queue a message, and for ever to broadcast one.

    Raises:
        BrokerUnavailable: both were in vain.
    """
    try:
        return send()
    except (RedisConnectionError, RedisTimeoutError) as error:
        if isinstance(error, RedisTimeoutError):
            about += (
                ", which may have arrived all the same (sent again with the same task_id, a request is computed once)"
            )
    with translated(about):
        return send()


def pool_free_control(app: Any) -> Any:
    """Celery's remote control, on the connection that is given to it alone.

    Its own holds one connection of a pool and takes another for its producer: as many threads as the pool has connections wait
    for each other for ever, or are refused (``LimitExceeded``).
    """
    control, mailbox = copy(app.control), copy(app.control.mailbox)
    mailbox._producer_pool = None
    control.mailbox = mailbox
    return control


@contextmanager
def sending(app: Any) -> Iterator[None]:
    """Turns the errors of kombu and redis-py while a message is sent into this project's error.

    Raises:
        BrokerUnavailable: Redis cannot be reached, or refuses this client.
    """
    try:
        yield
    except Exception as error:
        if not (isinstance(error, OperationalError | ResponseError) or is_away(error)):
            raise
        found = trouble(error.__cause__ or error)
        raise BrokerUnavailable(f"cannot send to {endpoint(app)} ({found.says}): {found.remedy}", found.entry) from None
