"""The options of an application that the fleet has to share: with others, requests or their results are found by nobody."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery.backends.base import DisabledBackend
from celery.backends.redis import RedisBackend

from tasks.errors import BrokerMisconfigured
from tasks.names import GENERATE

if TYPE_CHECKING:
    import redis

logger = logging.getLogger(GENERATE)

#: The entry of docs/troubleshooting.md.
OPTIONS = "An option that the fleet does not share"
#: Celery's protocol of messages that workers read.
PROTOCOL = 2
#: The arguments of redis-py that tell one database of one server from another.
_PLACE = ("host", "port", "path", "db", "sentinels", "master_name")


def require_options(app: Any) -> None:
    """Check an application's options.

    Raises:
        BrokerMisconfigured: names the option, its value and the remedy.
    """
    for name in ("broker_transport_options", "result_backend_transport_options"):
        prefix = (app.conf.get(name) or {}).get("global_keyprefix")
        if prefix:
            raise BrokerMisconfigured(
                f"{name}: global_keyprefix={prefix!r}: the fleet's keys have no prefix, so neither requests nor results would be "
                "found: leave it out, and give the fleet a database of its own, as in redis://HOST:6379/1",
                OPTIONS,
            )
    if app.conf.task_protocol != PROTOCOL:
        raise BrokerMisconfigured(
            f"task_protocol={app.conf.task_protocol!r}: workers read messages of protocol {PROTOCOL}: leave it out",
            OPTIONS,
        )


def require_results(app: Any, client: redis.Redis) -> None:
    """Make sure that an application reads results where the fleet stores them: beside the requests.

    Args:
        app: the application. Where its results are not in Redis, it may read streams alone, or have workers of its own.
        client: a client of its broker's server.

    Raises:
        BrokerMisconfigured: they are in another database or on another server.
        redis.RedisError: a server does not answer.
    """
    backend = app.backend
    if not isinstance(backend, RedisBackend):
        if not isinstance(backend, DisabledBackend):
            logger.warning(
                "result_backend is a %s, and workers of `celery -A tasks` store results in Redis, beside the requests: get() "
                "would wait for ever for what they answer; read stream(), or set result_backend to the broker's URL",
                type(backend).__name__,
            )
        return
    requests, results = (found.connection_pool.connection_kwargs for found in (client, backend.client))
    if all(requests.get(name) == results.get(name) for name in _PLACE):
        return
    # A server may have several names.
    if _number(requests) == _number(results) and _run_id(client) == _run_id(backend.client):
        return
    raise BrokerMisconfigured(
        f"result_backend is {_shown(results)}, and the fleet stores results beside the requests, in {_shown(requests)}: get() "
        "and chords would wait for ever; set result_backend to the broker's URL",
        OPTIONS,
    )


def _number(arguments: dict[str, Any]) -> int:
    return int(arguments.get("db") or 0)


def _run_id(client: redis.Redis) -> Any:
    info: Any = client.info("server")
    return info.get("run_id")


def _shown(arguments: dict[str, Any]) -> str:
    """A place without its secrets."""
    place = arguments.get("path") or ":".join(str(arguments[name]) for name in ("host", "port") if arguments.get(name))
    return f"database {_number(arguments)} of {place or 'the primary that Sentinel names'}"
