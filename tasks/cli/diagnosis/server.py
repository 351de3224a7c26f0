"""Whether Redis answers, which version it is, and whether it can be trusted with a queue."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

from tasks.cli.diagnosis.line import Line
from tasks.errors import BrokerUnavailable
from tasks.names import COMMAND
from tasks.server.connection import OLDEST_VERSION, connect, endpoint
from tasks.server.requirements import DIAGNOSIS, trouble_at, troubles

if TYPE_CHECKING:
    from collections.abc import Iterator


def server_lines(app: Any, timeout_s: float = 3.0) -> Iterator[Line]:
    """The Redis that this Celery app uses, which has so long for each answer."""
    import redis

    try:
        where = str(endpoint(app))
        client = connect(app, timeout_s=timeout_s)
    except BrokerUnavailable as error:
        yield Line("failure", "Redis", str(error), f"start doctor as {COMMAND} doctor, or set REDIS_URL")
        return
    with closing(client):
        try:
            begun = time.monotonic()
            client.ping()
            took_ms = (time.monotonic() - begun) * 1000
            yield Line("ok", "Redis", f"{where} answers in {took_ms:.1f} ms, the connection included")
            yield _version(client.info("server"))
            for found in troubles(client, DIAGNOSIS):
                yield Line("failure", "server", found.says, found.remedy)
                return
        except (redis.RedisError, OSError) as error:
            found = trouble_at(endpoint(app), error)
            yield Line("failure", "Redis", f"{where}: {found.says}", found.remedy)


def _version(info: dict[str, Any]) -> Line:
    speaks = str(info.get("redis_version", "unknown"))
    name = f"Valkey {info['valkey_version']}, as Redis {speaks}" if "valkey_version" in info else f"Redis {speaks}"
    if not speaks[:1].isdigit():
        oldest = ".".join(map(str, OLDEST_VERSION))
        return Line(
            "warning", "version", f"{name}: it does not say", f"make sure that it does what Redis {oldest} does"
        )
    return Line("ok", "version", name)
