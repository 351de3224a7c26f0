"""``celery -A tasks fleet``: who is up, what they carry, how fast, how deep the queues are; ``show``, ``drain``, ``resume``, …"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from tasks.broker.inventory.inventory import open_requests
from tasks.cli.overview import plain
from tasks.cli.overview.details import departed_lines, worker_lines
from tasks.cli.overview.terminal import printable
from tasks.cli.remote import client_of, find, names_of, state_of, tell, unknown_worker
from tasks.cli.requests import cancel, purge, requests
from tasks.errors import GenerationError
from tasks.fleet.reading import read_state
from tasks.messages.encoding import to_json
from tasks.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterable

    import redis
    from celery.bin.base import CLIContext


@click.group(invoke_without_command=True)
@click.option("--once", is_flag=True, help="Show it once, and end.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def fleet(ctx: click.Context, /, once: bool, as_json: bool, **_: Any) -> None:
    """Show workers and queues.

    On a terminal the view refreshes every second: r shows the requests, w the workers, q quits.
    """
    if ctx.invoked_subcommand is not None:
        return
    with client_of(ctx.obj) as client:
        if as_json:
            click.echo(to_json(state_of(client).as_json()))
        elif not _has_screen():
            _print(plain.lines(state_of(client)))
        else:
            _show_on_screen(ctx.obj, client, once=once)


@fleet.command()
@click.argument("worker")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def show(ctx: click.Context, /, worker: str, as_json: bool, **_: Any) -> None:
    """Show one WORKER in full, also after its end."""
    with client_of(ctx.obj) as client:
        state = state_of(client)
        found = find(state, worker)
        if found is not None:
            record = next(record for record in state.as_json()["workers"] if record["node"] == found.record.node)
            _print([to_json(record)] if as_json else worker_lines(found))
            return
        departed = [record for record in Registry(client).history() if worker in names_of(str(record.get("node")))]
        if not departed:
            raise click.ClickException(unknown_worker(state, worker))
        _print([to_json(departed[0])] if as_json else departed_lines(departed[0], state.now))


@fleet.command()
@click.argument("worker")
@click.pass_context
def drain(ctx: click.Context, /, worker: str, **_: Any) -> None:
    """Let a WORKER finish, and take no more requests."""
    click.echo(tell(ctx.obj, worker, "drain"))


@fleet.command()
@click.argument("worker")
@click.pass_context
def resume(ctx: click.Context, /, worker: str, **_: Any) -> None:
    """Let a drained WORKER take requests again."""
    click.echo(tell(ctx.obj, worker, "resume"))


for command in (requests, cancel, purge):
    fleet.add_command(command)


def _has_screen() -> bool:
    return sys.stdout.isatty() and find_spec("rich") is not None


def _show_on_screen(cli: CLIContext, client: redis.Redis, *, once: bool) -> None:
    from rich.console import Console

    from tasks.cli.overview import screen
    from tasks.cli.overview.keyboard import Keyboard
    from tasks.cli.overview.live import LiveView

    console = Console(no_color=True if cli.no_color else None, highlight=False)
    try:
        if once:
            screen.show(console, read_state(client))
        else:
            with Keyboard() as keyboard:
                LiveView(console, lambda: read_state(client), lambda: open_requests(client)).run(keyboard)
    except GenerationError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        return


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(printable(line))
