"""Explains errors of redis-py's: the cause, the remedy, and whether waiting helps."""

from __future__ import annotations

import re
from typing import NamedTuple

import redis
from redis.exceptions import BusyLoadingError, NoPermissionError, OutOfMemoryError, ReadOnlyError
from redis.sentinel import MasterNotFoundError

from tasks.errors import BrokerMisconfigured, BrokerUnavailable

#: A server's answer while somebody's script runs for longer than its limit (5 s). Nothing was done.
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
#: The entry about a server that is not reached.
NOT_THERE = "Redis is not there"
START = "start it there, or set REDIS_URL to where it is"


#: A Sentinel, as redis-py prints its client: a thousand characters.
_SENTINEL = re.compile(r"<redis\.client\.Redis\(.*?\)>\)>\)> - ")
_PIPELINE = re.compile(r"^Command # \d+ \(.*?\) of pipeline caused error: ")
#: What a server adds to an error inside of a script: "script: DIGEST, on @user_script:12."
_SCRIPT = re.compile(r",? script: .*\bon @user_script: ?\d+\.?$")


class Trouble(NamedTuple):
    """The answer of Redis in one line, the remedy, and the heading in docs/troubleshooting.md.

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


class _Case(NamedTuple):
    """Errors of one cause: by their class, by the beginning of their text, or by something in it."""

    remedy: str
    entry: str
    kinds: tuple[type[Exception], ...] = ()
    begins: tuple[str, ...] = ()
    contains: tuple[str, ...] = ()
    lasting: bool = False

    def has(self, error: BaseException, says: str) -> bool:
        """Whether this error is one of them. redis-py has no class for some, and inside of a pipeline for none."""
        return (
            isinstance(error, self.kinds) or says.startswith(self.begins) or any(word in says for word in self.contains)
        )


#: The first one that has an error counts.
_CASES = (
    _Case(
        "it has no password: leave it out of REDIS_URL", "Wrong password", begins=("AUTH <password> called without",)
    ),
    _Case(
        "put the right user and password into REDIS_URL",
        "Wrong password",
        kinds=(redis.AuthenticationError,),
        begins=("NOAUTH", "WRONGPASS"),
    ),
    _Case("give this user the rules of its role (docs/security.md)", "Wrong password", kinds=(NoPermissionError,)),
    _Case(
        "raise its maxmemory, or wait until results expire (result_ttl_s, journal_ttl_s)",
        "Redis is full",
        kinds=(OutOfMemoryError,),
        contains=("OOM command not allowed",),
    ),
    _Case("set REDIS_URL to the primary", "Redis is a replica", kinds=(ReadOnlyError,), contains=("READONLY",)),
    _Case("make room on the disk that it saves to", "Redis is full", begins=("MISCONF",)),
    _Case("raise its maxclients, or end unused clients", "Redis is full", begins=("max number of clients",)),
    _Case("connect its replicas, or lower its min-replicas-to-write", NOT_THERE, begins=("NOREPLICAS",)),
    _Case("set REDIS_URL to the primary", "Redis is a replica", begins=("Link with MASTER",)),
    _Case(
        "set a password there: without one, protected mode refuses other machines",
        "Wrong password",
        begins=("DENIED",),
    ),
    _Case(
        "remove rename-command from its configuration, or use another server",
        "Redis lacks a command",
        begins=("unknown command",),
    ),
    _Case(
        "another program has a key of this name: use a database of its own, as in /1", WRONG_URL, begins=("WRONGTYPE",)
    ),
    _Case("wait until Redis has read its data", NOT_THERE, kinds=(BusyLoadingError,)),
    _Case("wait until the script that runs there has ended", NOT_THERE, begins=BUSY),
    _Case(
        "end REDIS_URL with the number of one of its databases, as in /0",
        NOT_THERE,
        contains=("DB index",),
        lasting=True,
    ),
    _Case("are the Sentinels' hosts and master_name in REDIS_URL right?", NOT_THERE, kinds=(MasterNotFoundError,)),
    _Case(
        "check host and port in REDIS_URL, and whether a firewall is between", NOT_THERE, kinds=(redis.TimeoutError,)
    ),
    _Case(
        "use redis:// for a server without TLS, or name its certificate: rediss://...?ssl_ca_certs=FILE",
        "TLS at one end only",
        contains=("SSL", "certificate"),
        lasting=True,
    ),
)
_OTHER = _Case(START, NOT_THERE)


def trouble(error: BaseException) -> Trouble:
    """The cause and the remedy of an error of redis-py's, whichever class it has."""
    says = _answer_of(error).splitlines()[0].rstrip(". ")
    case = next((case for case in _CASES if case.has(error, says)), _OTHER)
    # The arguments of an unknown command may be a prompt.
    shown = says.partition(", with args")[0] if says.startswith("unknown command") else says
    return Trouble(shown, case.remedy, case.entry, case.lasting)


def _answer_of(error: BaseException) -> str:
    """The server's answer, without what redis-py and the server say about a command's place in a pipeline or a script."""
    says = _SCRIPT.sub("", _PIPELINE.sub("", str(error).strip() or type(error).__name__))
    return _SENTINEL.sub("", says) if isinstance(error, MasterNotFoundError) else says


def is_refusal(error: redis.ResponseError) -> bool:
    """Whether the server will take the same command later."""
    passing = (ReadOnlyError, NoPermissionError, OutOfMemoryError)
    return isinstance(error, passing) or _answer_of(error).startswith(REFUSALS)


def is_busy(error: BaseException) -> bool:
    """Whether Redis did nothing, because a script runs there for too long; the same call is taken later."""
    return _answer_of(error).startswith(BUSY)


def is_disk_full(error: BaseException) -> bool:
    """Whether Redis takes no write until it can save again. It refuses ``PING`` meanwhile too, and answers whoever reads."""
    return _answer_of(error).startswith("MISCONF")


def is_away(error: BaseException) -> bool:
    """Whether this error of Celery's says that Redis cannot be reached, as redis-py or Celery's result backend put it."""
    away = (redis.ConnectionError, redis.TimeoutError)
    if isinstance(error, redis.ResponseError):
        return is_busy(error)
    return isinstance(error, away) or (isinstance(error, RuntimeError) and isinstance(error.__cause__, away))


def is_denied(error: BaseException) -> bool:
    """Whether an ACL refuses a command, as redis-py or kombu put it."""
    return isinstance(error, NoPermissionError) or isinstance(error.__cause__, NoPermissionError)
