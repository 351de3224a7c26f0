"""The connections whose replies are parsed here: bounded waits, and what becomes of a connection that is lost."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from tasks.server.connection import connect
from tasks.server.resp import pack
from tasks.server.wire import READ_BYTES, Wire
from tests.support import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis


@pytest.fixture
def wire(redis_url: str) -> Iterator[Wire]:
    with closing(connect(redis_url, timeout_s=4.0, attempts=1)) as client:
        wire = Wire(client)
        yield wire
        wire.disconnect()


def test_several_commands(wire: Wire) -> None:
    """The replies come in order, errors among them, however large they are."""
    large = "x" * (3 * READ_BYTES)
    packed = pack("SET", "large", large) + pack("LPUSH", "large", "a") + pack("GET", "large")
    said, refused, found = wire.ask(packed, 3)
    assert said == b"OK"
    assert isinstance(refused, ResponseError)
    assert found == large.encode()


def test_no_reply_in_time(wire: Wire) -> None:
    """A reply that does not come is given up by the client's time-out, and the next command opens another connection."""
    with pytest.raises(RedisTimeoutError):
        wire.ask(pack("BLPOP", "nothing", 600), 1)
    assert wire.ask(pack("PING"), 1) == [b"PONG"]


def test_a_connection_that_the_server_closed(wire: Wire, redis_client: redis.Redis) -> None:
    """It is an error for who asks on it, and none for who looks first, after a silence."""
    for looks in (False, True):
        (number,) = wire.ask(pack("CLIENT", "ID"), 1)
        redis_client.client_kill_filter(_id=number)
        wait_until(lambda number=number: not redis_client.client_list(client_id=[number]))  # type: ignore[misc]
        if looks:
            wire.drop_if_closed(silence_s=0)
            assert wire.ask(pack("PING"), 1) == [b"PONG"]
        else:
            with pytest.raises(RedisConnectionError):
                wire.ask(pack("PING"), 1)


def test_what_was_published(wire: Wire, redis_client: redis.Redis) -> None:
    """What has come is given without a wait, and nothing is nothing."""
    wire.connect()
    assert wire.heard() == ([], False)
    wire.send(pack("SUBSCRIBE", "c"))
    wait_until(redis_client.pubsub_channels)
    redis_client.publish("c", "news")
    heard: list[object] = []
    wait_until(lambda: heard.extend(wire.heard()[0]) or len(heard) == 2)  # type: ignore[func-returns-value]
    assert heard == [[b"subscribe", b"c", 1], [b"message", b"c", b"news"]]
