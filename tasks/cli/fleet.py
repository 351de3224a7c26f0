"""``celery -A tasks fleet``: who is up, what they carry, how fast, how deep the queues are; ``show``, ``drain``, ``resume``."""

from __future__ import annotations

import difflib
import json
import sys
from contextlib import closing
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click
from kombu.exceptions import OperationalError

from tasks.cli.overview import plain
from tasks.cli.overview.details import departed_lines, worker_lines
from tasks.cli.overview.state import read_state
from tasks.errors import GenerationError
from tasks.journal.connection import connect
from tasks.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterable

    import redis
    from celery.bin.base import CLIContext

    from tasks.cli.overview.state import FleetState, WorkerView

#: A worker answers within milliseconds, unless its loop is stuck.
ANSWER_S = 3.0


@click.group(invoke_without_command=True)
@click.option("--once", is_flag=True, help="Show it once instead of every second.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def fleet(ctx: click.Context, /, once: bool, as_json: bool, **_: Any) -> None:
    """Show workers and queues, renewed every second on a terminal."""
    if ctx.invoked_subcommand is not None:
        return
    with _client(ctx.obj) as client:
        if as_json:
            click.echo(json.dumps(_state(client).as_json()))
        elif not _has_screen():
            _print(plain.lines(_state(client)))
        else:
            _show_on_screen(ctx.obj, client, once=once)


@fleet.command()
@click.argument("worker")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def show(ctx: click.Context, /, worker: str, as_json: bool, **_: Any) -> None:
    """Show all that one WORKER says of itself, or its last words."""
    with _client(ctx.obj) as client:
        state = _state(client)
        found = _find(state, worker)
        if found is not None:
            record = next(each for each in state.as_json()["workers"] if each["node"] == found.record.node)
            _print([json.dumps(record)] if as_json else worker_lines(found))
            return
        departed = [each for each in Registry(client).history() if worker in _names(str(each.get("node")))]
        if not departed:
            raise click.ClickException(_unknown(state, worker))
        _print([json.dumps(departed[0])] if as_json else departed_lines(departed[0], state.now))


@fleet.command()
@click.argument("worker")
@click.pass_context
def drain(ctx: click.Context, /, worker: str, **_: Any) -> None:
    """Have a WORKER take no more requests; those that run go on."""
    _control(ctx.obj, "drain", worker)


@fleet.command()
@click.argument("worker")
@click.pass_context
def resume(ctx: click.Context, /, worker: str, **_: Any) -> None:
    """Have a WORKER that was drained take requests again."""
    _control(ctx.obj, "resume", worker)


def _control(cli: CLIContext, command: str, worker: str) -> None:
    with _client(cli) as client:
        state = _state(client)
    found = _find(state, worker)
    if found is None:
        raise click.ClickException(_unknown(state, worker))
    node = found.record.node
    with cli.app.connection_for_write() as connection:
        try:
            # With a limit this returns at the worker's answer; without one it would wait for the whole time.
            replies = cli.app.control.broadcast(
                command, destination=[node], reply=True, timeout=ANSWER_S, limit=1, connection=connection
            )
        except (OperationalError, *connection.connection_errors) as error:
            raise click.ClickException(f"{command} of {node}: Redis cannot be reached ({error})") from error
    answer = replies[0][node] if replies else None
    if answer is None:
        raise click.ClickException(
            f"{node} did not answer within {ANSWER_S:g} s; it is {found.condition}"
            + (f" ({found.reason})" if found.reason else "")
        )
    if "error" in answer:
        raise click.ClickException(f"{node}: {answer['error']}")
    click.echo(f"{node}: {answer['ok']}" + (f" ({answer['reason']})" if answer.get("reason") else ""))


def _client(cli: CLIContext) -> closing[redis.Redis]:
    try:
        return closing(connect(cli.app))
    except GenerationError as error:
        raise click.ClickException(str(error)) from error


def _state(client: redis.Redis) -> FleetState:
    try:
        return read_state(client)
    except GenerationError as error:
        raise click.ClickException(str(error)) from error


def _find(state: FleetState, name: str) -> WorkerView | None:
    """The worker of this node name, or of this part of it before or after the ``@`` if only one has it."""
    exact = [each for each in state.workers if each.record.node == name]
    partly = [each for each in state.workers if name in _names(each.record.node)]
    if len(exact or partly) > 1:
        names = ", ".join(each.record.node for each in partly)
        raise click.ClickException(f"{name!r} may mean {names}: give the whole name")
    return next(iter(exact or partly), None)


def _names(node: str) -> tuple[str, ...]:
    return (node, *node.split("@", 1))


def _unknown(state: FleetState, name: str) -> str:
    known = [each.record.node for each in state.workers]
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known[:3]
    hint = f"; did you mean {', '.join(close)}?" if close else ": none is registered"
    return f"no worker is called {name!r}{hint}"


def _has_screen() -> bool:
    return sys.stdout.isatty() and find_spec("rich") is not None


def _show_on_screen(cli: CLIContext, client: redis.Redis, *, once: bool) -> None:
    from rich.console import Console

    from tasks.cli.overview import screen

    console = Console(no_color=True if cli.no_color else None, highlight=False)
    try:
        if once:
            screen.show(console, read_state(client))
        else:
            screen.watch(console, lambda: read_state(client))
    except GenerationError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        return


def _print(lines: Iterable[str]) -> None:
    # An ASCII terminal gets question marks, not a traceback.
    encoding = sys.stdout.encoding or "utf-8"
    for line in lines:
        click.echo(line.encode(encoding, "replace").decode(encoding))
