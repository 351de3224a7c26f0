"""``celery -A tasks metrics``: the whole fleet for Prometheus, out of the registry."""

from __future__ import annotations

import signal
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click
from celery.bin.base import CeleryCommand

from tasks.cli.exporter.families import redis_away, scrape
from tasks.cli.exporter.server import MetricsServer
from tasks.cli.remote import client_of, refusal
from tasks.errors import BrokerUnavailable, GenerationError
from tasks.server.connection import connect

if TYPE_CHECKING:
    import redis


@click.command(cls=CeleryCommand)
@click.option("--address", default="127.0.0.1", show_default=True, help="Address to listen at; there is no password.")
@click.option(
    "--port",
    default=9808,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen at; 0 takes a free one.",
)
@click.option("--once", is_flag=True, help="Print the metrics once, instead of serving them.")
@click.pass_context
def metrics(ctx: click.Context, /, address: str, port: int, once: bool, **_: Any) -> None:
    """Serve the fleet's metrics to Prometheus, at /metrics. One is enough for the fleet."""
    if once:
        with client_of(ctx.obj) as client:
            _print(client)
        return
    try:
        client = connect(ctx.obj.app)
    except BrokerUnavailable as error:
        raise refusal(error) from error
    with closing(client):
        _serve(client, address, port)


def _print(client: redis.Redis) -> None:
    try:
        click.echo(scrape(client), nl=False)
    except GenerationError as error:
        raise click.ClickException(str(error)) from error


def _serve(client: redis.Redis, address: str, port: int) -> None:
    try:
        server = MetricsServer(address, port, Page(client))
    except OSError as error:
        raise click.ClickException(
            f"cannot listen at {address}, port {port} ({error.strerror or error}): choose others with --address and --port"
        ) from error
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with server:
        click.echo(f"metrics of the fleet: {server.url}")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


class Page:
    """The page at ``/metrics``; without Redis it says so, there and once on the terminal."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._away = False

    def __call__(self) -> bytes:
        """The body of one answer."""
        try:
            body = scrape(self._client)
        except GenerationError as error:
            if not self._away:
                click.echo(f"metrics: {error}; redis_up is 0 until it is back", err=True)
            self._away = True
            return redis_away()
        if self._away:
            click.echo("metrics: Redis is back", err=True)
        self._away = False
        return body
