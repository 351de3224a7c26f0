"""Connects a channel to Redis: one pool of connections for a process and a server, through Sentinel where there is one."""

from __future__ import annotations

import os
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, cast

from kombu.transport import redis as stock

from tasks.broker.channel.holding import OPTION, Holding
from tasks.server.pool import Pool
from tasks.server.sentinel import Login, SentinelConnection, SentinelTlsConnection
from worker_config.celeryconfig import SETTINGS, settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from worker_config.settings import Settings


class ConnectingChannel(stock.Channel):
    """A channel whose commands share connections with all others of the process."""

    from_transport_options = (
        *(*stock.Channel.from_transport_options, OPTION, SETTINGS),
        *("sentinels", "master_name", "sentinel_kwargs"),
    )
    #: The Sentinels' hosts and ports, their name for the primary, and how to connect to them; ``None`` without Sentinel.
    sentinels: Sequence[Sequence[Any]] | None = None
    master_name: str = ""
    sentinel_kwargs: dict[str, Any] | None = None
    _clients: ClassVar[dict[tuple[int, str], Any]] = {}

    @cached_property
    def holding(self) -> Holding:
        """The worker's, if this application has a worker here."""
        return Holding()

    @cached_property
    def settings(self) -> Settings:
        """The application's, if it was configured with this project's options; else those of the environment."""
        return settings_of(None)

    @property
    def pool(self) -> Any:
        """The command pool of this process and server."""
        return self._commands().connection_pool

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        """The client for one command; kombu makes a new one for each, which costs more than the command."""
        yield client or self._commands()

    @property
    def evaluator(self) -> Any:
        """The caller of scripts that may run twice."""
        return self.holding.scripts or self._commands()

    @cached_property
    def _server(self) -> str:
        return str(self.connection.client.as_uri(include_password=True))

    def _commands(self) -> Any:
        ident = (os.getpid(), self._server)
        if ident not in self._clients:
            self._clients[ident] = self.Client(connection_pool=self._get_pool())
        return self._clients[ident]

    def _get_pool(self, asynchronous: bool = False) -> Any:
        found = super()._get_pool(asynchronous)
        if asynchronous:
            return found
        return Pool(found.connection_class, **found.connection_kwargs)

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        if not self.sentinels:
            return cast("dict[str, Any]", super()._connparams(asynchronous))
        self.connection_class, self.connection_class_ssl = SentinelConnection, SentinelTlsConnection
        options = {"sentinels": self.sentinels, "master_name": self.master_name}
        kept = {
            name: value for name, value in super()._connparams(asynchronous).items() if name not in ("host", "port")
        }
        return {**kept, **options, "sentinel_kwargs": Login(self.sentinel_kwargs or {})}

    def _disconnect_pools(self) -> None:
        async_pool = self.__dict__.pop("_async_pool", None)
        if async_pool is not None:
            async_pool.disconnect()
