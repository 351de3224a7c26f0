"""``celery -A tasks keys``: API keys of the gateway; ``make``, ``list``, ``revoke``."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from tasks.cli.overview.plain import table_lines
from tasks.cli.overview.table import Column, fitted
from tasks.cli.overview.terminal import printable, terminal_width
from tasks.cli.overview.words import NOTHING, clean
from tasks.cli.remote import client_of
from tasks.client.request.options import LEAST_URGENT, MOST_URGENT
from tasks.errors import GenerationError
from tasks.fleet.words import age
from tasks.gateway.records.access_key import AccessKey, id_of, new_key
from tasks.gateway.records.store import Store
from tasks.messages.encoding import to_json
from tasks.names import COMMAND

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery.bin.base import CLIContext

COLUMNS = (
    Column("id", 0),
    Column("name", 1, least=8),
    Column("models", 2, least=8),
    Column("requests/min", 6, justify="right"),
    Column("tokens/min", 7, justify="right"),
    Column("at once", 8, justify="right"),
    Column("priority", 9, justify="right"),
    Column("requests", 4, justify="right"),
    Column("tokens", 5, justify="right"),
    Column("used", 3, justify="right"),
)


@click.group()
def keys(**_: Any) -> None:
    """Make, list and revoke the API keys of the gateway."""


@keys.command()
@click.argument("name")
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="PATTERN",
    show_default="all",
    help="Models that it may use, such as 'qwen3-*'; may be repeated.",
)
@click.option(
    "--priority",
    type=click.IntRange(MOST_URGENT, LEAST_URGENT),
    default=MOST_URGENT,
    show_default=True,
    help="Most urgent priority of its requests.",
)
@click.option(
    "--requests", type=click.IntRange(0), default=0, metavar="N", help="Requests per minute; 0 sets no limit."
)
@click.option("--tokens", type=click.IntRange(0), default=0, metavar="N", help="Tokens per minute; 0 sets no limit.")
@click.option(
    "--at-once", type=click.IntRange(0), default=0, metavar="N", help="Open requests at the same time; 0 sets no limit."
)
@click.pass_context
def make(
    ctx: click.Context,
    /,
    name: str,
    models: tuple[str, ...],
    priority: int,
    requests: int,
    tokens: int,
    at_once: int,
    **_: Any,
) -> None:
    """Make a key called NAME and print it.

    It is printed only once, and stored as a hash.
    """
    secret = new_key()
    key = AccessKey(
        id=id_of(secret),
        name=name,
        models=models,
        priority=priority,
        requests_a_minute=requests,
        tokens_a_minute=tokens,
        at_once=at_once,
        created=int(time.time()),
    )
    with store_of(ctx.obj) as store:
        store.add_key(secret, key)
    click.echo(secret)
    click.echo(f"The key {name!r} has the id {key.id}. It is shown only this once.", err=True)


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def list_(ctx: click.Context, /, as_json: bool, **_: Any) -> None:
    """List the keys, their limits and usage."""
    with store_of(ctx.obj) as store:
        found = [(key, store.usage(key.id)) for key in store.all_keys()]
    if as_json:
        click.echo(to_json({"keys": [{**asdict(key), "usage": usage} for key, usage in found]}))
        return
    if not found:
        click.echo(f"no API keys: `{COMMAND} keys make NAME` makes one")
        return
    for line in table_lines(fitted(COLUMNS, [_row(key, usage) for key, usage in found], terminal_width())):
        click.echo(printable(line))


@keys.command()
@click.argument("key_id", metavar="ID")
@click.pass_context
def revoke(ctx: click.Context, /, key_id: str, **_: Any) -> None:
    """Revoke the key of this ID.

    `keys list` shows the ids. The key's usage stays.
    """
    with store_of(ctx.obj) as store:
        if not store.revoke_key(key_id):
            raise click.ClickException(f"no key, or more than one, has the id {key_id!r}: `keys list` shows them")
    click.echo(f"{key_id} is revoked; gateways let it in for two more seconds at most")


@contextmanager
def store_of(cli: CLIContext) -> Iterator[Store]:
    """Open the store of the keys.

    Raises:
        click.ClickException: Redis cannot be used.
    """
    with client_of(cli) as client:
        try:
            yield Store(client)
        except GenerationError as error:
            raise click.ClickException(str(error)) from error


def _row(key: AccessKey, usage: dict[str, int]) -> tuple[str, ...]:
    used_s = time.time() - usage["used_at"]
    return (
        key.id,
        clean(key.name),
        clean(", ".join(key.models) or "all"),
        *(str(limit or NOTHING) for limit in (key.requests_a_minute, key.tokens_a_minute, key.at_once)),
        str(key.priority),
        str(usage["requests"]),
        str(usage["prompt_tokens"] + usage["completion_tokens"]),
        f"{age(max(0.0, used_s))} ago" if usage["used_at"] else NOTHING,
    )
