"""``celery -A tasks gateway``: OpenAI's HTTP interface on the queue."""

from __future__ import annotations

import gc
import signal
from contextlib import closing, suppress
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click
from celery.bin.base import CeleryCommand

from tasks.cli.remote import refusal
from tasks.errors import BrokerUnavailable
from tasks.gateway.access.access import AccessRules, is_loopback
from tasks.gateway.records.store import Store
from tasks.names import COMMAND, EMBED, GENERATE, PACKAGE, RERANK
from tasks.server.connection import connect
from tasks.server.requirements import GATEWAY, require_server
from worker_config.open_files import allow_open_files
from worker_config.settings import current_settings

if TYPE_CHECKING:
    import redis


@click.command(cls=CeleryCommand)
@click.option("--address", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option(
    "--port",
    default=8000,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen at; 0 takes a free one.",
)
@click.option("--tls-cert", default="", metavar="FILE", help="TLS certificate, followed by those that signed it.")
@click.option("--tls-key", default="", metavar="FILE", help="The certificate's private key.")
@click.option(
    "--plain-http",
    is_flag=True,
    help="Listen at other addresses than loopback without TLS, behind a proxy that has it.",
)
@click.option(
    "--allow-origin",
    "origins",
    multiple=True,
    metavar="URL",
    help="Site whose pages may send requests; may be repeated.",
)
@click.option("--no-keys", is_flag=True, help="Answer everybody, without API keys.")
@click.pass_context
def gateway(
    ctx: click.Context,
    /,
    address: str,
    port: int,
    tls_cert: str,
    tls_key: str,
    plain_http: bool,
    origins: tuple[str, ...],
    no_keys: bool,
    **_: Any,
) -> None:
    """Answer OpenAI's clients over HTTP. Any number of gateways may run side by side.

    On loopback it needs no API key until you make the first one; elsewhere it needs keys and TLS.
    """
    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        raise click.ClickException("this needs the extra 'web': pip install 'celery-mlx[web]'")
    if bool(tls_cert) != bool(tls_key):
        raise click.UsageError("give both of --tls-cert and --tls-key, or neither")
    app = ctx.obj.app
    try:
        require_server(app, GATEWAY)
        client = connect(app)
    except BrokerUnavailable as error:
        raise refusal(error) from error
    rules = AccessRules(is_local=is_loopback(address), needs_no_key=no_keys, origins=origins)
    with closing(client):
        _require_safe(client, rules, address, has_tls=bool(tls_cert), plain_http=plain_http)
        _serve(app, client, rules, (address, port), (tls_cert, tls_key))


def _require_safe(client: redis.Redis, rules: AccessRules, address: str, *, has_tls: bool, plain_http: bool) -> None:
    """An address that others reach needs keys and TLS, unless the person who types says otherwise.

    Raises:
        click.ClickException: it has not.
    """
    if rules.is_local:
        return
    if not has_tls and not plain_http:
        raise click.ClickException(
            f"others can reach {address}, and keys and prompts would travel in plain text: give --tls-cert and --tls-key, or "
            "--plain-http where a proxy has TLS or the network is yours"
        )
    if not rules.needs_no_key and not Store(client).has_keys():
        raise click.ClickException(
            f"others can reach {address}, and there is no API key: make one with {COMMAND} keys make NAME, or give --no-keys "
            "to answer every client"
        )


def _serve(
    app: Any, client: redis.Redis, rules: AccessRules, where: tuple[str, int], certificate: tuple[str, str]
) -> None:
    from tasks.gateway.connection.server import OPEN_FILES, Server, listen
    from tasks.gateway.gateway import make_gateway

    allow_open_files(OPEN_FILES)
    address, port = where
    try:
        listening = listen(address, port)
    except OSError as error:
        raise click.ClickException(
            f"cannot listen at {address}, port {port} ({error.strerror or error}): choose others with --address and --port"
        ) from error
    import_module(
        f"{PACKAGE}.rerank"
    )  # shared tasks are every application's once their modules are loaded, as embed's is then
    others = {"embedding": app.tasks[EMBED], "rerank": app.tasks[RERANK]}
    settings = current_settings()
    made = make_gateway(app.tasks[GENERATE], others, client, rules, settings)
    # A full garbage collection goes over what start-up has made for tens of milliseconds, in which nothing streams.
    gc.collect()
    gc.freeze()
    with listening:
        host = f"[{address}]" if ":" in address else address
        scheme = "https" if certificate[0] else "http"
        click.echo(f"OpenAI's interface: {scheme}://{host}:{listening.getsockname()[1]}/v1")
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # uvicorn raises the signal again once it has ended
        with suppress(KeyboardInterrupt):
            Server(made.application, made.closing, certificate, settings.gateway_stall_s).run([listening])
