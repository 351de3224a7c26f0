"""The requirements on a Redis server. A process checks them once, before it uses the server."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis

from tasks.server import keys
from tasks.server.application import require_options, require_results
from tasks.server.connection import OLDEST_VERSION, Endpoint, connect, endpoint
from tasks.server.listener import listener
from tasks.server.trouble import WRONG_URL, Trouble, trouble

if TYPE_CHECKING:
    from collections.abc import Iterator

_EVERYBODY = (
    *(
        "EVAL",
        "EVALSHA",
        "SCRIPT",
        "MULTI",
        "EXEC",
        "TIME",
        "GET",
        "MGET",
        "SET",
        "HGET",
        "HSET",
        "HDEL",
        "HGETALL",
        "LLEN",
    ),
    *("LPOS", "LPUSH", "LREM", "RPUSH", "SADD", "SMEMBERS", "XRANGE", "XREVRANGE", "ZADD", "ZCARD", "ZRANGE", "ZSCORE"),
    # Kombu says PING before it sends and looks for the binding of a queue; Celery watches the keys of a chord.
    *("PING", "SELECT", "SISMEMBER", "WATCH", "UNWATCH", "DISCARD", "PUBLISH", "SUBSCRIBE", "UNSUBSCRIBE"),
)
_FLEET = (
    *(
        "CLIENT",
        "BRPOP",
        "RPOP",
        "LRANGE",
        "LTRIM",
        "DEL",
        "EXISTS",
        "EXPIRE",
        "PEXPIRE",
        "SETEX",
        "HEXISTS",
        "HKEYS",
        "HMGET",
    ),
    *("HLEN", "HSCAN", "HVALS", "LINDEX", "PSUBSCRIBE", "SREM", "XADD", "XSETID", "ZCOUNT", "ZPOPMIN", "ZRANGEBYSCORE"),
    *("PUNSUBSCRIBE", "ZREM"),
)
_GATEWAY = ("HEXISTS", "HINCRBY", "HLEN", "HMGET", "HSETNX", "HVALS", "ZREM", "ZREMRANGEBYSCORE", "EXPIRE")


@dataclass(frozen=True, slots=True)
class Requirements:
    """The requirements of a kind of process on its server.

    Args:
        commands: names of commands that the server must have.
        probes: commands without effect that must not be refused. A proxy may list a command that it refuses.
        writes: whether the process writes.
    """

    commands: tuple[str, ...] = ()
    probes: tuple[tuple[str, ...], ...] = ()
    writes: bool = True


PRODUCER = Requirements(_EVERYBODY)
WORKER = Requirements((*_EVERYBODY, *_FLEET), (("CLIENT", "ID"), ("CLIENT", "UNBLOCK", "0")))
GATEWAY = Requirements((*_EVERYBODY, *_GATEWAY))
SWEEP = Requirements((*_EVERYBODY, *_FLEET), (("CLIENT", "ID"), ("CLIENT", "LIST", "ID", "1")))
MONITOR = Requirements(writes=False)
#: The commands are listed, not tried, because the person who asks may have the rights of a producer.
DIAGNOSIS = Requirements(WORKER.commands)

#: Entries of docs/troubleshooting.md.
LACKS = "Redis lacks a command"
ONE_END = "TLS at one end only"
TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
#: The errors of a client where something else listens, among other reasons.
NO_REDIS = (redis.ConnectionError, redis.TimeoutError, redis.InvalidResponse)


def require_server(source: Any, requirements: Requirements = PRODUCER) -> None:
    """Make sure that the server of a Celery app, or at a URL, can be used, and that the app's options are the fleet's.

    Raises:
        BrokerUnavailable: it cannot be used now; the message says what to do.
        BrokerMisconfigured: it can never be used under this URL, or with the app's options.
    """
    where = endpoint(source)
    app = source if requirements.writes and not isinstance(source, str | Endpoint) else None
    if app is not None:
        require_options(app)
    with closing(connect(where, attempts=1)) as client:
        try:
            found = next(troubles(client, requirements), None)
            if found is None and app is not None:
                require_results(app, client)
        except (redis.RedisError, OSError) as error:
            raise trouble_at(where, error).error(f"{where}: Redis cannot be used") from error
    if found is not None:
        raise found.error(f"{where}: Redis cannot be used")


def trouble_at(where: Endpoint, error: Exception) -> Trouble:
    """Find out why a server does not answer as Redis does, and what else listens there, if anything does."""
    url = where.parsed
    for name, path in (*url.tls, *where.options):
        if name in TLS_FILES and isinstance(path, str) and not Path(path).is_file():
            return Trouble(
                f"{name} names {path}, which is not a file", "correct it in REDIS_URL", WRONG_URL, lasting=True
            )
    found = trouble(error)
    if isinstance(error, redis.AuthenticationError | redis.BusyLoadingError):
        return found
    if url.scheme not in ("redis", "rediss") or not isinstance(error, NO_REDIS):
        return found
    there, tls = listener(url.host, url.port), url.scheme == "rediss"
    if there == "TLS" and not tls:
        return Trouble(f"{found.says}; the server speaks TLS", "write rediss:// in REDIS_URL", ONE_END, lasting=True)
    if there == "Redis" and tls:
        return Trouble(
            f"{found.says}; the server does not speak TLS", "write redis:// in REDIS_URL", ONE_END, lasting=True
        )
    if there in ("HTTP", "other"):
        kind = "an HTTP server" if there == "HTTP" else "something else than Redis"
        return Trouble(f"{kind} listens there", "correct host and port in REDIS_URL", WRONG_URL, lasting=True)
    return found


def troubles(client: redis.Redis, requirements: Requirements) -> Iterator[Trouble]:
    """Yield each reason why a server that answers cannot be used.

    Raises:
        redis.RedisError: it does not answer, or refuses a command.
    """
    info: dict[str, Any] = client.info()
    yield from troubles_of(info)
    missing = _missing(client, requirements.commands)
    if missing:
        says = f"it has no command {', '.join(missing)}"
        yield Trouble(says, "remove rename-command from its configuration, or use another server", LACKS)
    for probe in requirements.probes:
        client.execute_command(*probe)  # type: ignore[no-untyped-call]
    if requirements.writes:
        try_write(client)


def troubles_of(info: dict[str, Any]) -> Iterator[Trouble]:
    """Yield each reason against a server in its answer to INFO."""
    version = str(info.get("redis_version", ""))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers and numbers < OLDEST_VERSION:
        oldest = ".".join(map(str, OLDEST_VERSION))
        yield Trouble(
            f"version {version} is too old", f"install Redis {oldest} or later, or Valkey", "Redis is too old"
        )
    # Valkey has renamed the field.
    mode = info.get("redis_mode", info.get("server_mode"))
    if mode == "sentinel":
        yield Trouble("it is a Sentinel", "set REDIS_URL to the primary that it watches", WRONG_URL, lasting=True)
    if mode == "cluster" or info.get("cluster_enabled"):
        says = "it is in cluster mode, in which queues, results and journals are on several servers"
        yield Trouble(says, "set REDIS_URL to a server without cluster mode", "Redis is in cluster mode", lasting=True)
    if info.get("loading"):
        yield Trouble("it is loading its data", "wait until it has read it", "Redis is not there")
    if info.get("role") == "slave":
        says = f"it is a replica of {info.get('master_host')}:{info.get('master_port')}"
        yield Trouble(says, "set REDIS_URL to the primary", "Redis is a replica")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        says = f"its maxmemory-policy is {policy}, which deletes requests, answers and leases when memory is full"
        yield Trouble(says, "CONFIG SET maxmemory-policy noeviction, and in its configuration", "Redis evicts keys")


def try_write(client: redis.Redis) -> None:
    """Write nothing: the key is missing. A server that is full or a replica refuses this as it refuses any write.

    Every role but a reader may write this key (docs/security.md).
    """
    client.set(keys.cancel("none"), "", xx=True, keepttl=True)


def _missing(client: redis.Redis, commands: tuple[str, ...]) -> list[str]:
    """The commands that a server does not have; none where it does not tell."""
    if not commands:
        return []
    client.set_response_callback(
        "COMMAND", lambda reply, **_: reply
    )  # redis-py's own one fails where a command is missing
    try:
        known: Any = client.execute_command("COMMAND", "INFO", *commands)  # type: ignore[no-untyped-call]
    except redis.ResponseError:
        return []
    if not isinstance(known, list) or len(known) != len(commands):
        return []
    return [name for name, about in zip(commands, known, strict=True) if about is None]
