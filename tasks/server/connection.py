"""The way to Redis that journals use: found in a Celery app's settings, without redis-py's surprising defaults."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, NoPermissionError, OutOfMemoryError, ReadOnlyError
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError

from tasks.errors import BrokerMisconfigured, BrokerUnavailable, JournalFailed
from tasks.server.patience import Patience
from tasks.server.sentinel import through_sentinel
from worker_config.celeryconfig import settings_of
from worker_config.environment import SettingError
from worker_config.redis_url import SCHEMES, RedisUrl, without_password

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Streams without NOMKSTREAM, and lists without BLMOVE, are what older servers lack.
OLDEST_VERSION = (6, 2)
#: What a server says while somebody's script runs for longer than its limit (5 s). Nothing was done.
BUSY = ("BUSY ", "UNKILLABLE")
# Answers of a server that will take the same write later; redis-py has classes of their own for some others.
REFUSALS = (
    "OOM",
    "READONLY",
    "MISCONF",
    "LOADING",
    "MASTERDOWN",
    "NOREPLICAS",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "NOPERM",
    "NOAUTH",
    *BUSY,
)


#: The entry of docs/troubleshooting.md about an address that cannot be used.
WRONG_URL = "An address that cannot be used"
START = "start it there, or set REDIS_URL to where it is"

_PIPELINE = re.compile(r"^Command # \d+ \(.*?\) of pipeline caused error: ")


class Trouble(NamedTuple):
    """What Redis said, in one line; what a person does about it; and the heading in docs/troubleshooting.md.

    ``lasting``: this URL will not do, however long one waits.
    """

    says: str
    remedy: str
    entry: str
    lasting: bool = False

    def error(self, about: str) -> BrokerUnavailable:
        """The error that says this."""
        kind = BrokerMisconfigured if self.lasting else BrokerUnavailable
        return kind(f"{about} ({self.says}): {self.remedy}", self.entry)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where Redis is, and how long it is waited for.

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


def trouble(error: BaseException) -> Trouble:
    """What is the matter with Redis, by an error of redis-py's, whichever class it gives it."""
    says = _PIPELINE.sub("", str(error).strip() or type(error).__name__).splitlines()[0].rstrip(". ")
    if isinstance(error, redis.AuthenticationError) or says.startswith(("NOAUTH", "WRONGPASS")):
        return Trouble(says, "put the right user and password into REDIS_URL", "Wrong password")
    if isinstance(error, NoPermissionError):
        remedy = "give this user the rules of its role (docs/security.md)"
        return Trouble(says, remedy, "Wrong password")
    if isinstance(error, OutOfMemoryError) or "OOM command not allowed" in says:
        remedy = "raise its maxmemory, or wait until results expire (result_ttl_s, journal_ttl_s)"
        return Trouble(says, remedy, "Redis is full")
    if isinstance(error, ReadOnlyError) or "READONLY" in says:
        return Trouble(says, "set REDIS_URL to the primary", "Redis is a replica")
    if says.startswith("MISCONF"):
        return Trouble(says, "make room on the disk that it saves to", "Redis is full")
    if says.startswith("unknown command"):
        remedy = "remove rename-command from its configuration, or use another server"
        return Trouble(says.partition(", with args")[0], remedy, "Redis lacks a command")
    if says.startswith("WRONGTYPE"):
        return Trouble(says, "another program has a key of this name: use a database of its own, as in /1", WRONG_URL)
    if isinstance(error, BusyLoadingError):
        return Trouble(says, "wait until Redis has read its data", "Redis is not there")
    if is_busy(error):
        return Trouble(says, "wait until the script that runs there has ended", "Redis is not there")
    if "DB index" in says:
        remedy = "end REDIS_URL with the number of one of its databases, as in /0"
        return Trouble(says, remedy, "Redis is not there", lasting=True)
    if isinstance(error, MasterNotFoundError):
        return Trouble(says, "are the Sentinels' hosts and master_name in REDIS_URL right?", "Redis is not there")
    if isinstance(error, redis.TimeoutError):
        remedy = "check host and port in REDIS_URL, and whether a firewall is between"
        return Trouble(says, remedy, "Redis is not there")
    if "SSL" in says or "certificate" in says:
        remedy = "use redis:// for a server without TLS, or name its certificate: rediss://...?ssl_ca_certs=FILE"
        return Trouble(says, remedy, "TLS at one end only", lasting=True)
    return Trouble(says, START, "Redis is not there")


def is_busy(error: BaseException) -> bool:
    """Whether Redis did nothing, because a script runs there for too long; the same call is taken later."""
    return _PIPELINE.sub("", str(error)).startswith(BUSY)


def is_away(error: BaseException) -> bool:
    """Whether this error of Celery's says that Redis cannot be reached, as redis-py or Celery's result backend put it."""
    away = (redis.ConnectionError, redis.TimeoutError)
    if isinstance(error, redis.ResponseError):
        return is_busy(error)
    return isinstance(error, away) or (isinstance(error, RuntimeError) and isinstance(error.__cause__, away))


def is_denied(error: BaseException) -> bool:
    """Whether an ACL refuses a command, as redis-py or kombu put it."""
    return isinstance(error, NoPermissionError) or isinstance(error.__cause__, NoPermissionError)


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
    """The URL with what Celery keeps of its Sentinels beside it."""
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
    """Turns redis-py's errors into this project's; ``about`` says what was being done.

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
        if isinstance(error, ReadOnlyError | NoPermissionError | OutOfMemoryError) or _PIPELINE.sub(
            "", str(error)
        ).startswith(REFUSALS):
            found = trouble(error)
            raise BrokerUnavailable(f"{about}: Redis refuses ({found.says}): {found.remedy}", found.entry) from error
        raise JournalFailed(f"{about}: Redis answered {error}") from error
