"""``celery -A tasks fleet requests``, ``cancel`` and ``purge``: what waits and runs, and how to end it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from tasks.broker.inventory.inventory import open_requests
from tasks.broker.inventory.purge import purge_queue
from tasks.cli.overview.requests import REQUEST_COLUMNS, request_row
from tasks.cli.overview.table import fitted
from tasks.cli.overview.terminal import terminal_width
from tasks.cli.overview.words import clean
from tasks.cli.remote import client_of
from tasks.client.result import GenerateResult
from tasks.errors import GenerationError
from tasks.fleet.words import counted
from tasks.messages.encoding import to_json
from worker_config.celeryconfig import DEFAULT_QUEUE
from worker_config.tiers import QUEUES, TIERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from celery import Celery

    from tasks.broker.inventory.inventory import OpenRequest

#: A list for people is cut here.
SHOWN = 50


@click.command()
@click.option("--limit", default=SHOWN, show_default=True, type=click.IntRange(1), help="Most requests to list.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with all of them.")
@click.pass_context
def requests(ctx: click.Context, /, limit: int, as_json: bool, **_: Any) -> None:
    """List the requests that run or wait.

    For each: where it is, since when, and how many tokens it has.
    """
    with client_of(ctx.obj) as client:
        try:
            found = open_requests(client)
        except GenerationError as error:
            raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(to_json({"requests": [asdict(request) for request in found]}))
        return
    for line in request_lines(found, limit, terminal_width()):
        click.echo(line)


def request_lines(found: Sequence[OpenRequest], limit: int, width: int | None) -> Iterator[str]:
    """The list as lines of text."""
    if not found:
        yield "no request runs or waits"
        return
    table = fitted(REQUEST_COLUMNS, [request_row(request) for request in found[:limit]], width)
    yield from ("".join(cells).rstrip() for cells in table.lines())
    if len(found) > limit:
        yield f"… and {len(found) - limit} more: --limit {len(found)} shows them"


@click.command()
@click.argument("task_ids", metavar="ID...", nargs=-1, required=True)
@click.pass_context
def cancel(ctx: click.Context, /, task_ids: tuple[str, ...], **_: Any) -> None:
    """Cancel requests that wait or run.

    ID may be the beginning of an id.
    """
    with client_of(ctx.obj) as client:
        try:
            known = [request.task_id for request in open_requests(client)]
            failed = [task_id for task_id in task_ids if not _cancel(ctx.obj.app, _complete_id(task_id, known))]
        except GenerationError as error:
            raise click.ClickException(str(error)) from error
    ctx.exit(1 if failed else 0)


def _complete_id(typed: str, known: Sequence[str]) -> str:
    """The one open request whose id begins like this; what was typed, where there is none or several."""
    found = [task_id for task_id in known if task_id.startswith(typed)]
    return found[0] if len(found) == 1 else typed


def _cancel(app: Celery, task_id: str) -> bool:
    """Cancel one request and say so; ``False`` if there is nothing to cancel."""
    result = GenerateResult(task_id, backend=app.backend, app=app)
    before = result.status()
    if before.state in ("unknown", "ended"):
        click.echo(f"{clean(task_id)}: not cancelled: {before}", err=True)
        return False
    result.revoke(terminate=True)
    click.echo(f"{clean(task_id)}: cancelled ({before})")
    return True


@click.command()
@click.argument("queue")
@click.option("--force", "-f", is_flag=True, help="Do not ask.")
@click.pass_context
def purge(ctx: click.Context, /, queue: str, force: bool, **_: Any) -> None:
    """Cancel all requests that wait in a QUEUE.

    QUEUE is a queue or a tier. Readers see the requests end as cancelled. This cannot be undone.
    """
    name = next((tier.queue for tier in TIERS if queue in (tier.name, tier.queue)), queue)
    known = {*QUEUES, DEFAULT_QUEUE, *ctx.obj.app.amqp.queues}
    if name not in known:
        raise click.ClickException(f"no queue is called {queue!r}; they are {', '.join(sorted(known))}")
    with client_of(ctx.obj) as client:
        if not force:
            click.confirm(f"End all requests that wait in {name}?", abort=True)
        try:
            count = purge_queue(client, name, ctx.obj.app)
        except GenerationError as error:
            raise click.ClickException(str(error)) from error
    click.echo(f"{name}: {counted(count, 'request')} ended as cancelled")
