"""The way to Redis that journals use: found in a Celery app's settings, without redis-py's surprising defaults."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tasks.errors import BrokerMisconfigured, BrokerUnavailable, JournalFailed
from tasks.server.patience import Patience
from tasks.server.sentinel import through_sentinel
from tasks.server.trouble import WRONG_URL, is_refusal, trouble
from worker_config.celeryconfig import settings_of
from worker_config.environment import SettingError
from worker_config.redis_url import SCHEMES, RedisUrl, without_password

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Older servers lack ``NOMKSTREAM``, ``BLMOVE``, ``GETDEL`` and RESP3.
OLDEST_VERSION = (6, 2)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of a Redis, and for how long calls wait for it.

    Attributes:
        url: that of a :class:`worker_config.redis_url.RedisUrl`.
        options: TLS options that Celery keeps beside it.
        patience: an application's, by its settings.
    """

    url: str = field(repr=False)
    options: tuple[tuple[str, Any], ...] = ()
    patience: Patience = field(default=Patience(), repr=False, compare=False)

    @property
    def parsed(self) -> RedisUrl:
        """The parts of the URL."""
        return RedisUrl.parse(self.url)

    @property
    def database(self) -> int:
        """The number of the database."""
        return self.parsed.database

    def is_same_server(self, other: Endpoint) -> bool:
        """Whether both lead to one database of one server, be it with other options for TLS."""
        first, second = (replace(endpoint.parsed, scheme="redis", tls=()) for endpoint in (self, other))
        return first == second

    def __str__(self) -> str:
        return without_password(self.url)


def connect(source: Any, *, timeout_s: float | None = None, attempts: int = 2) -> redis.Redis:
    """A client for the Redis of a Celery app, a URL or an :class:`Endpoint`. Nothing is sent before its first command.

    It answers in bytes, waits at most ``timeout_s`` for a reply (without it as long as the application's ``redis_timeout_s``
    says; 5 s at a URL), and sends a command at most twice (a pooled connection may be stale): redis-py would try eleven times,
    which is a minute when a server hangs.

    Raises:
        BrokerMisconfigured: the app's broker and result backend are not Redis, or the URL cannot be used.
    """
    where = endpoint(source)
    timeout_s = timeout_s or where.patience.answer_within_s
    options = {
        **dict(where.options),
        # RESP3 would announce itself and ask for maintenance messages on each connection, for nothing we read.
        "protocol": 2,
        "decode_responses": False,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(NoBackoff(), attempts - 1),
    }
    url = where.parsed
    if url.sentinels:
        return redis.Redis.from_pool(redis.ConnectionPool(**_to_primary(url, options)))
    # What the URL's query says beats these arguments, so endpoint() leaves nothing in it but TLS.
    return redis.Redis.from_url(where.url, **options)


def _to_primary(url: RedisUrl, options: dict[str, Any]) -> dict[str, Any]:
    secure = url.scheme == "rediss+sentinel"
    parameters = {
        **options,
        **dict(url.tls),
        "db": url.database,
        "username": url.user or None,
        "password": url.password or None,
        "connection_class": redis.SSLConnection if secure else redis.Connection,
    }
    return through_sentinel(parameters, url.sentinel_options())


def endpoint(source: Any, transport_options: Mapping[str, Any] | None = None) -> Endpoint:
    """The endpoint of a Celery app, or of a URL as Celery writes it, with the options that Celery keeps beside it.

    Raises:
        BrokerMisconfigured: there is no Redis in the app's settings, or its URL cannot be used.
    """
    if isinstance(source, Endpoint):
        return source
    if isinstance(source, str):
        return _endpoint(source, "the URL of Redis", None, transport_options, Patience())
    conf, patience = source.conf, Patience.of(settings_of(source))
    candidates = [
        (
            "broker_read_url",
            conf.broker_read_url or conf.broker_url,
            conf.broker_use_ssl,
            conf.broker_transport_options,
        ),
        (
            *("result_backend", conf.result_backend),
            *(conf.redis_backend_use_ssl, conf.result_backend_transport_options),
        ),
    ]
    shown = []
    for name, value, tls, options in candidates:
        # Several brokers to fail over to are separated by semicolons, or a list.
        url = ";".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        if url.split(":", 1)[0].lower() in SCHEMES:
            return _endpoint(url, name, tls, options, patience)
        shown.append(f"{name}={without_password(url)!r}")
    # Celery's current application is a thread's own; a thread that has none gets an empty one of this name.
    is_nobodys = source.main == "default"
    remedy = (
        "call app.set_default() where your application is made, for all threads" if is_nobodys else "use a redis:// URL"
    )
    raise BrokerMisconfigured(
        f"journals need Redis, and neither setting names one: {', '.join(shown)}; {remedy}", WRONG_URL
    )


def _endpoint(text: str, name: str, tls: Any, transport_options: Any, patience: Patience) -> Endpoint:
    try:
        url = RedisUrl.parse(text, name)
    except SettingError as error:
        raise BrokerMisconfigured(str(error), WRONG_URL) from None
    if url.sentinels:
        url = _with_sentinels(url, transport_options or {})
    options = dict(tls) if isinstance(tls, dict) else {}
    if options:
        tls_options = tuple((option, value) for option, value in url.tls if option not in options)
        url = replace(url, scheme="rediss+sentinel" if url.sentinels else "rediss", tls=tls_options)
    return Endpoint(str(url), tuple(sorted(options.items())), patience)


def _with_sentinels(url: RedisUrl, options: Mapping[str, Any]) -> RedisUrl:
    """Return the URL with the Sentinel's options, which Celery keeps beside it."""
    login = options.get("sentinel_kwargs") or {}
    return replace(
        url,
        sentinels=tuple((host, int(port)) for host, port in options.get("sentinels") or url.sentinels),
        master_name=options.get("master_name") or url.master_name,
        sentinel_user=login.get("username") or url.sentinel_user,
        sentinel_password=login.get("password") or url.sentinel_password,
    )


@contextmanager
def translated(about: str) -> Iterator[None]:
    """Turns redis-py's errors into this project's; ``about`` names the action.

    Raises:
        BrokerUnavailable: Redis cannot be reached, or refuses for now.
        JournalFailed: any other error of the server.
    """
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
        found = trouble(error)
        verb = "refuses" if isinstance(error, redis.AuthenticationError) else "cannot be reached"
        raise BrokerUnavailable(f"{about}: Redis {verb} ({found.says}): {found.remedy}", found.entry) from error
    except redis.ResponseError as error:
        if is_refusal(error):
            found = trouble(error)
            raise BrokerUnavailable(f"{about}: Redis refuses ({found.says}): {found.remedy}", found.entry) from error
        raise JournalFailed(f"{about}: Redis answered {error}") from error
