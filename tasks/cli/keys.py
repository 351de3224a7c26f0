"""``celery -A tasks keys``: API keys of the gateway; ``make``, ``list``, ``revoke``."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from tasks.cli.overview.columns import aligned
from tasks.cli.overview.words import NOTHING, age
from tasks.cli.remote import client_of
from tasks.client.options import LEAST_URGENT, MOST_URGENT
from tasks.errors import GenerationError
from tasks.gateway.access_key import AccessKey, id_of, new_key
from tasks.gateway.store import Store
from tasks.messages.encoding import to_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery.bin.base import CLIContext

COLUMNS = ("id", "name", "models", "priority", "requests/min", "tokens/min", "at once", "requests", "tokens", "used")


@click.group()
def keys(**_: Any) -> None:
    """Make, list and revoke the API keys of the gateway."""


@keys.command()
@click.argument("name")
@click.option(
    "--model", "models", multiple=True, metavar="PATTERN", help="It may use this model alone; may be repeated."
)
@click.option(
    "--priority",
    type=click.IntRange(MOST_URGENT, LEAST_URGENT),
    default=MOST_URGENT,
    show_default=True,
    help="The most urgent priority of its requests.",
)
@click.option("--requests", type=click.IntRange(0), default=0, metavar="N", help="So many requests a minute.")
@click.option("--tokens", type=click.IntRange(0), default=0, metavar="N", help="So many tokens a minute.")
@click.option("--at-once", type=click.IntRange(0), default=0, metavar="N", help="So many requests at the same time.")
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
    """Make a key called NAME, and print it: it is shown this once, and stored as a hash."""
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


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def list_(ctx: click.Context, /, as_json: bool, **_: Any) -> None:
    """List the keys, what each may do, and what was counted of it."""
    with store_of(ctx.obj) as store:
        found = [(key, store.usage(key.id)) for key in store.all_keys()]
    if as_json:
        click.echo(to_json({"keys": [{**asdict(key), "usage": usage} for key, usage in found]}))
        return
    rows = [COLUMNS, *(_row(key, usage) for key, usage in found)]
    for line in aligned(rows):
        click.echo(line)


@keys.command()
@click.argument("key_id", metavar="ID")
@click.pass_context
def revoke(ctx: click.Context, /, key_id: str, **_: Any) -> None:
    """Let the key of this ID, as `keys list` shows it, in no more. What was counted of it stays."""
    with store_of(ctx.obj) as store:
        if not store.revoke_key(key_id):
            raise click.ClickException(f"no key, or more than one, has the id {key_id!r}: `keys list` shows them")
    click.echo(f"{key_id} is revoked; gateways let it in for two more seconds at most")


@contextmanager
def store_of(cli: CLIContext) -> Iterator[Store]:
    """Where the keys are.

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
        key.name,
        ", ".join(key.models) or "all",
        str(key.priority),
        *(str(limit or NOTHING) for limit in (key.requests_a_minute, key.tokens_a_minute, key.at_once)),
        str(usage["requests"]),
        str(usage["prompt_tokens"] + usage["completion_tokens"]),
        f"{age(max(0.0, used_s))} ago" if usage["used_at"] else NOTHING,
    )
