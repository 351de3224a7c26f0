"""Connections to the primary that Sentinel names: asked for at each connect, so that a promotion needs no restart of anybody."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import redis
from redis.exceptions import ReadOnlyError
from redis.sentinel import Sentinel

if TYPE_CHECKING:
    from collections.abc import Mapping

#: A Sentinel that does not answer by then is passed over.
TIMEOUT_S = 1.0


class Login(dict[str, Any]):
    """How to connect to the Sentinels. redis-py prints the arguments of a pool, and hides the password of the server alone."""

    def __repr__(self) -> str:
        return repr(sorted(self))


class _ToPrimary:
    """A connection of redis-py's that is told its host and port by the Sentinels.

    redis-py's own class for this needs a pool of its own kind, which neither kombu's channels nor Celery's results have.

    Args:
        sentinels: hosts and ports.
        master_name: the name that the Sentinels have for the primary.
        sentinel_kwargs: how to connect to the Sentinels.
    """

    def __init__(
        self, *, sentinels: Any, master_name: str, sentinel_kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        self._sentinels = tuple((host, int(port)) for host, port in sentinels)
        self._master_name = master_name
        self._sentinel_kwargs = tuple(sorted((sentinel_kwargs or {}).items()))
        super().__init__(**options)

    def _connect(self) -> Any:
        host, port = _sentinel(self._sentinels, self._sentinel_kwargs).discover_master(self._master_name)
        vars(self).update(host=host, port=port)
        return super()._connect()  # type: ignore[misc]

    def read_response(self, *args: Any, **options: Any) -> Any:
        """The next reply. A server that takes no writes is a primary of before: the next connect asks again."""
        try:
            return super().read_response(*args, **options)  # type: ignore[misc]
        except ReadOnlyError as error:
            self.disconnect()  # type: ignore[attr-defined]
            raise redis.ConnectionError(f"no longer the primary of {self._master_name!r} ({error})") from error


class SentinelConnection(_ToPrimary, redis.Connection):
    """To the primary."""


class SentinelTlsConnection(_ToPrimary, redis.SSLConnection):
    """To the primary, over TLS."""


def through_sentinel(parameters: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a pool whose connections ask the Sentinels of these options, instead of going to one host."""
    secure = issubclass(parameters.get("connection_class") or redis.Connection, redis.SSLConnection)
    kept = {name: value for name, value in parameters.items() if name not in ("host", "port", "connection_class")}
    return {
        **kept,
        "connection_class": SentinelTlsConnection if secure else SentinelConnection,
        **{name: options.get(name) for name in ("sentinels", "master_name")},
        "sentinel_kwargs": Login(options.get("sentinel_kwargs") or {}),
    }


@cache
def _sentinel(sentinels: tuple[tuple[str, int], ...], options: tuple[tuple[str, Any], ...]) -> Any:
    return Sentinel(  # type: ignore[no-untyped-call]
        list(sentinels),
        sentinel_kwargs={"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S, **dict(options)},
    )
