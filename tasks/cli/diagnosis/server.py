"""Whether Redis answers, which version it is, and whether it can be trusted with a queue."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

from tasks.cli.diagnosis.line import Line
from tasks.errors import BrokerUnavailable
from tasks.server.connection import OLDEST_VERSION, connect, endpoint, trouble, try_write

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT_S = 3.0


def server_lines(app: Any) -> Iterator[Line]:
    """The Redis that this Celery app uses."""
    import redis

    try:
        where = str(endpoint(app))
        client = connect(app, timeout_s=TIMEOUT_S)
    except BrokerUnavailable as error:
        yield Line("failure", "Redis", str(error), "start doctor as celery -A tasks doctor, or set REDIS_URL")
        return
    with closing(client):
        try:
            begun = time.monotonic()
            client.ping()
            took_ms = (time.monotonic() - begun) * 1000
            yield Line("ok", "Redis", f"{where} answers in {took_ms:.1f} ms, the connection included")
            info = client.info()
        except (redis.RedisError, OSError) as error:
            found = trouble(error)
            yield Line("failure", "Redis", f"{where}: {found.says}", found.remedy)
            return
        lines = list(info_lines(info))
        yield from lines
        if any(line.level == "failure" for line in lines):
            return
        try:
            try_write(client)
        except (redis.RedisError, OSError) as error:
            found = trouble(error)
            yield Line("failure", "writes", found.says, found.remedy)


def info_lines(info: dict[str, Any]) -> Iterator[Line]:
    """What ``INFO`` says of a server that answers."""
    yield _version(info)
    if info.get("role") == "slave":
        yield Line("failure", "role", "a replica, which refuses writes", "set REDIS_URL to the primary")
    policy = info.get("maxmemory_policy", "noeviction")
    if info.get("maxmemory") and policy != "noeviction":
        remedy = "CONFIG SET maxmemory-policy noeviction: a full Redis then refuses requests, and loses none"
        yield Line("warning", "eviction", f"{policy} at {info['maxmemory']} bytes may drop queued requests", remedy)


def _version(info: dict[str, Any]) -> Line:
    speaks = str(info.get("redis_version", "unknown"))
    name = f"Valkey {info['valkey_version']}, as Redis {speaks}" if "valkey_version" in info else f"Redis {speaks}"
    oldest = ".".join(map(str, OLDEST_VERSION))
    numbers = tuple(int(part) for part in speaks.split(".")[:2] if part.isdigit())
    if not numbers:
        return Line(
            "warning", "version", f"{name}: it does not say", f"make sure that it does what Redis {oldest} does"
        )
    if numbers < OLDEST_VERSION:
        return Line("failure", "version", f"{name} is too old", f"install Redis {oldest} or later, or Valkey")
    return Line("ok", "version", name)
