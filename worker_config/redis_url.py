"""The address of Redis: parsed from a URL, checked, written in the form that every client reads, and shown without its secrets.

redis-py, kombu and Celery parse a URL differently. Query parameters override the arguments that redis-py is called with, kombu
splits the text at every ``;``, and redis-py takes a database that is not a number for database 0. Therefore this module parses
the URL once, and passes on only the server's place, the credentials and the parameters of :data:`TLS`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import parse_qsl, quote, unquote, urlencode

from worker_config.environment import SettingError

if TYPE_CHECKING:
    from collections.abc import Mapping

Scheme: TypeAlias = Literal["redis", "rediss", "unix", "sentinel", "rediss+sentinel"]

PORT = 6379
SENTINEL_PORT = 26379
MASTER_NAME = "mymaster"
HIDDEN = "***"
#: The query parameters that are passed on. The code sets all other parameters that redis-py would read from a query.
TLS = ("ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
#: Values of ``ssl_cert_reqs``: redis-py's names, and Celery's names for the same checks.
CHECKS = {"none": "none", "optional": "optional", "required": "required"}
CHECKS |= {f"CERT_{name.upper()}": name for name in ("none", "optional", "required")}
#: Query parameters that are moved to the place in the URL that every client reads.
READ = ("db", "virtual_host", "username", "password")
#: Query parameters of a Sentinel's URL.
SENTINEL = ("master_name", "sentinel_username", "sentinel_password")
#: Names that an error message may repeat because they are parameters of the clients, and no part of a password.
# fmt: off
KNOWN = frozenset((
    "client_name", "decode_responses", "encoding", "health_check_interval", "legacy_responses", "max_connections",
    "protocol", "retry_on_error", "retry_on_timeout", "socket_connect_timeout", "socket_keepalive", "socket_read_size",
    "socket_timeout", "ssl", "ssl_ca_path", "ssl_check_hostname", "ssl_exclude_verify_flags", "ssl_include_verify_flags",
    "ssl_min_version", "ssl_password", "timeout", "visibility_timeout",
))
# fmt: on
#: Schemes that people write, and the meaning of each.
SCHEMES: dict[str, Scheme] = {
    "redis": "redis",
    "rediss": "rediss",
    "unix": "unix",
    "redis+socket": "unix",
    "sentinel": "sentinel",
    "redis+sentinel": "sentinel",
    "rediss+sentinel": "rediss+sentinel",
}
SENTINELS = ("sentinel", "rediss+sentinel")
INSTEAD = {
    "valkey": "write redis://, which Valkey speaks too",
    "valkeys": "write rediss://, which Valkey speaks too",
    "sentinel": "write sentinel://, or rediss+sentinel:// for TLS",
    "cluster": "Redis Cluster is not supported: use a server without cluster mode, as in redis://HOST:6379/0",
}
ESCAPE = "percent-encode the characters / ? # [ ] @ : ; % and spaces in user and password, as in %2F for /"

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^?#]*)(?:\?([^#]*))?(#.*)?", re.DOTALL)
_PLACE = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])?(?::([0-9]{1,5}))?")
#: The separator between two URLs; Celery's failover lists have ``;``.
_NEXT = re.compile(r"[;,]\s*(?=[A-Za-z][A-Za-z0-9+.-]*://)")
_USER = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PATH = re.compile(r"[\w./+-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisUrl:
    """The address of a Redis server. ``path`` belongs to the scheme ``unix``; ``tls`` holds parameters of :data:`TLS`.

    With Sentinel, ``sentinels`` are hosts and ports of the Sentinels, which are asked for the primary of ``master_name``.
    ``user`` and ``password`` are those of Redis.
    """

    scheme: Scheme = "redis"
    host: str = "localhost"
    port: int = PORT
    database: int = 0
    user: str = field(default="", repr=False)  # it may be a password in the wrong place
    password: str = field(default="", repr=False)
    path: str = ""
    tls: tuple[tuple[str, str], ...] = ()
    sentinels: tuple[tuple[str, int], ...] = ()
    master_name: str = ""
    sentinel_user: str = field(default="", repr=False)
    sentinel_password: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str, name: str = "REDIS_URL") -> RedisUrl:
        """Parse a URL.

        Args:
            text: the URL.
            name: the setting that has the URL, for the error message.

        Raises:
            SettingError: the URL cannot be used; the message names the setting, the URL without secrets, and the remedy.
        """
        try:
            return _parsed(text.strip())
        except _Unusable as error:
            # A chained exception could show the password in a traceback.
            raise SettingError(f"{name}={without_password(text)!r}: {error}") from None

    def __str__(self) -> str:
        """The URL as redis-py, kombu and Celery read it; a Sentinel's as only this project does."""
        secret = f":{quote(self.password, safe='')}" if self.password else ""
        who = f"{quote(self.user, safe='')}{secret}@" if self.user or secret else ""
        if self.scheme == "unix":
            return f"unix://{who}{quote(self.path)}?db={self.database}"
        places = ",".join(_place(*sentinel) for sentinel in self.sentinels or ((self.host, self.port),))
        values = (self.master_name, self.sentinel_user, self.sentinel_password)
        named = urlencode([(name, value) for name, value in zip(SENTINEL, values, strict=True) if value])
        query = "&".join(filter(None, (named, urlencode(self.tls, safe="/"))))
        return f"{self.scheme}://{who}{places}/{self.database}" + (f"?{query}" if query else "")

    def sentinel_options(self) -> dict[str, Any]:
        """Return the options of kombu and Celery for the Sentinels; empty where there are none."""
        if not self.sentinels:
            return {}
        login = {"username": self.sentinel_user, "password": self.sentinel_password}
        tls = {"ssl": True, **dict(self.tls)} if self.tls else {}
        return {
            "sentinels": [list(sentinel) for sentinel in self.sentinels],
            "master_name": self.master_name,
            "sentinel_kwargs": {name: value for name, value in login.items() if value} | tls,
        }


class _Unusable(Exception):
    """The fault of a URL, and the remedy. The message never repeats a part of the URL that may be secret."""


def without_password(text: str) -> str:
    """The text of a URL, or of a list of URLs, with every secret hidden.

    Only parts that are certainly not secret are shown. If an unescaped character makes the end of the password ambiguous, the
    scheme alone is shown.
    """
    return "; ".join(_shown(word) for word in _NEXT.split(text.strip()))


def _shown(text: str) -> str:
    found = _URL.fullmatch(text)
    if found is None:
        place = _PLACE.fullmatch(text)
        return text if place is not None and place[1] else HIDDEN
    scheme, authority, path, query, fragment = found.groups(default="")
    who, at, rest = authority.rpartition("@")
    kind = SCHEMES.get(scheme.lower())
    places = [_PLACE.fullmatch(word) for word in (rest.split(",") if kind in SENTINELS else [rest])]
    if "@" in path + query + fragment or any(place is None or (place[2] and not place[1]) for place in places):
        return f"{scheme}://{HIDDEN}"
    if kind == "unix":
        path = path if _PATH.fullmatch(path) else f"/{HIDDEN}"
    elif not re.fullmatch(r"/?|/[0-9]{1,4}/?", path):
        path = f"/{HIDDEN}"
    shown = f"{scheme}://{_shown_user(who)}{at}{rest}{path}"
    return shown + (f"?{_shown_query(query)}" if query else "") + ("#***" if fragment else "")


def _shown_user(who: str) -> str:
    """A user name is shown if a password follows it; alone it may be a password in the wrong place."""
    user, colon, password = who.partition(":")
    if not password and not user:
        return colon
    if user and not (password and _USER.fullmatch(user)):
        user = HIDDEN
    return f"{user}:{HIDDEN}" if colon else user


def _shown_query(query: str) -> str:
    shown = []
    for part in query.split("&"):
        name, equals, value = part.partition("=")
        is_number = name in ("db", "virtual_host") and value.isdecimal()
        plain = is_number or (name in (*TLS, "master_name") and _PATH.fullmatch(value))
        known = equals and name in {*KNOWN, *TLS, *READ, *SENTINEL}
        shown.append(part if plain else f"{name if known else HIDDEN}={HIDDEN}")
    return "&".join(shown)


@lru_cache(16)
def _parsed(text: str) -> RedisUrl:
    first, *others = [_parsed_once(word) for word in _NEXT.split(text)]
    for other in others:
        # Celery names each Sentinel by a URL of its own.
        if not first.sentinels or replace(other, sentinels=first.sentinels) != first:
            raise _Unusable("several servers are named, and queues, results and journals must be on one: name one")
    return replace(first, sentinels=tuple(place for url in (first, *others) for place in url.sentinels))


def _parsed_once(text: str) -> RedisUrl:
    found = _URL.fullmatch(text)
    if found is None:
        raise _Unusable("not a URL; write redis://USER:PASSWORD@HOST:6379/0")
    name, authority, path, query, fragment = found.groups(default="")
    scheme = _scheme(name.lower())
    if fragment or "@" in path + query or not text.isprintable() or " " in text:
        raise _Unusable(ESCAPE)
    who, _, rest = authority.rpartition("@")
    parameters = _parameters(query, SENTINEL if scheme in SENTINELS else ())
    user, _, password = who.partition(":")
    url = RedisUrl(
        scheme=scheme,
        user=_single(unquote(user), parameters.pop("username", ""), "user names"),
        password=_single(unquote(password), parameters.pop("password", ""), "passwords"),
    )
    if scheme == "unix":
        database = _single(parameters.pop("db", ""), parameters.pop("virtual_host", ""), "databases")
        return replace(url, host="", port=0, path=_socket(path, rest), database=_number(database))
    if "virtual_host" in parameters:
        raise _Unusable("the parameter virtual_host is for sockets; end the URL with the database, as in /0")
    url = replace(url, database=_number(_single(path.strip("/"), parameters.pop("db", ""), "databases")))
    if scheme not in SENTINELS:
        host, port = _host_and_port(rest, PORT)
        return replace(url, host=host, port=port, tls=_tls(scheme, parameters))
    return replace(
        url,
        host="",
        port=0,
        sentinels=tuple(_host_and_port(word, SENTINEL_PORT) for word in rest.split(",")),
        master_name=parameters.pop("master_name", "") or MASTER_NAME,
        sentinel_user=parameters.pop("sentinel_username", ""),
        sentinel_password=parameters.pop("sentinel_password", ""),
        tls=_tls(scheme, parameters),
    )


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _host_and_port(text: str, default: int) -> tuple[str, int]:
    place = _PLACE.fullmatch(text)
    if place is None:
        raise _Unusable(f"HOST:PORT is not valid; {ESCAPE}")
    if place[2] and not place[1]:
        raise _Unusable("there is no host before the port; write redis://localhost:6379/0")
    port = default if place[2] is None else int(place[2])
    if not 0 < port < 1 << 16:
        raise _Unusable("the port is not between 1 and 65535; correct it")
    return (place[1] or "localhost").strip("[]").lower(), port


def _scheme(scheme: str) -> Scheme:
    if scheme in SCHEMES:
        return SCHEMES[scheme]
    known = next((instead for part, instead in INSTEAD.items() if part in re.split(r"[+_-]", scheme)), "")
    raise _Unusable(known or "not a URL of Redis; write redis://, or rediss:// for TLS")


def _parameters(query: str, more: tuple[str, ...]) -> dict[str, str]:
    """The query's parameters; a parameter that is not allowed is an error."""
    parameters: dict[str, str] = {}
    allowed = (*more, *TLS, *READ)
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in allowed:
            shown = f"the parameter {name}" if name in {*KNOWN, *SENTINEL} else "an unknown parameter"
            raise _Unusable(f"{shown} cannot be set there; leave it out (allowed: {', '.join(allowed)})")
        parameters[name] = _single(value, parameters.get(name, ""), "values of one parameter")
    return parameters


def _single(first: str, second: str, things: str) -> str:
    if first and second and first != second:
        raise _Unusable(f"there are two {things}; leave one out")
    return first or second


def _number(text: str) -> int:
    if text and not re.fullmatch(r"[0-9]{1,9}", text):
        raise _Unusable("the database is not a number; end the URL with the number of a database, as in /0")
    return int(text or 0)


def _socket(path: str, rest: str) -> str:
    if rest or not path.strip("/"):
        raise _Unusable("there is no path of a socket; write unix:///run/redis.sock?db=0")
    return unquote(path)


def _tls(scheme: Scheme, parameters: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    if not scheme.startswith("rediss"):
        if parameters:
            secure = "rediss+sentinel" if scheme in SENTINELS else "rediss"
            raise _Unusable(f"{next(iter(parameters))} is for TLS; write {secure}://, or leave it out")
        return ()
    check = parameters.get("ssl_cert_reqs") or "required"
    if check not in CHECKS:
        raise _Unusable("ssl_cert_reqs is not valid; write CERT_REQUIRED, CERT_OPTIONAL or CERT_NONE")
    values = {"ssl_cert_reqs": CHECKS[check], **{name: value for name, value in parameters.items() if value}}
    return tuple({**values, "ssl_cert_reqs": CHECKS[check]}.items())
