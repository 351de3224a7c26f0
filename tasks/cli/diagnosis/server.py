"""Whether Redis answers, which version it is, and whether it can be trusted with a queue."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

from tasks.cli.diagnosis.line import Line
from tasks.errors import BrokerUnavailable
from tasks.journal.connection import connect, endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Streams without NOMKSTREAM, and lists without BLMOVE and GETDEL, are what older ones lack.
OLDEST_VERSION = (6, 2)
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
            yield _refusal(where, error)
            return
    yield from info_lines(info)


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


def _refusal(where: str, error: Exception) -> Line:
    import redis

    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, redis.AuthenticationError) or said.startswith(("NOAUTH", "WRONGPASS")):
        remedy = "put the right password into REDIS_URL: redis://:PASSWORD@HOST:6379/0"
    elif isinstance(error, redis.exceptions.NoPermissionError):
        remedy = "let this user use all keys, channels and commands: ACL SETUSER NAME ~* &* +@all"
    elif isinstance(error, redis.BusyLoadingError):
        remedy = "wait until Redis has read its data"
    elif isinstance(error, redis.TimeoutError):
        remedy = "is the port right, is a firewall between, does the server want rediss:// (TLS)?"
    elif "SSL" in said or "certificate" in said:
        remedy = "use redis:// for a server without TLS, or name its certificate: rediss://...?ssl_ca_certs=FILE"
    else:
        remedy = "start Redis or Valkey there, or set REDIS_URL to where it is"
    return Line("failure", "Redis", f"{where}: {said}", remedy)
