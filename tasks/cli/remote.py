"""Shared by the commands about other machines: the fleet's state, a worker by its name, and a command to it."""

from __future__ import annotations

import difflib
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click
from kombu.exceptions import OperationalError

from tasks.errors import BrokerMisconfigured, BrokerUnavailable, GenerationError, pointer
from tasks.fleet.reading import read_state
from tasks.server.connection import connect
from tasks.server.requirements import MONITOR, require_server

if TYPE_CHECKING:
    import redis
    from celery.bin.base import CLIContext

    from tasks.fleet.state import FleetState, WorkerView

#: A worker answers within milliseconds, unless its loop is stuck, or its machine is busy with something else.
ANSWER_S = 10.0


class Unusable(click.ClickException):
    """Redis cannot be used now."""

    exit_code = BrokerUnavailable.exit_status


class Misconfigured(Unusable):
    """Redis can never be used under this ``REDIS_URL``."""

    exit_code = BrokerMisconfigured.exit_status


def refusal(error: BrokerUnavailable) -> Unusable:
    """Return the error that ends a command that cannot use Redis."""
    kind = Misconfigured if isinstance(error, BrokerMisconfigured) else Unusable
    return kind(f"{error}{pointer(error.entry)}")


def client_of(cli: CLIContext) -> closing[redis.Redis]:
    """A client of the application's Redis.

    Raises:
        click.ClickException: it cannot be used.
    """
    try:
        require_server(cli.app, MONITOR)
        return closing(connect(cli.app))
    except BrokerUnavailable as error:
        raise refusal(error) from error


def state_of(client: redis.Redis) -> FleetState:
    """The fleet as it is now.

    Raises:
        click.ClickException: Redis cannot be reached.
    """
    try:
        return read_state(client)
    except GenerationError as error:
        raise click.ClickException(str(error)) from error


def find(state: FleetState, name: str) -> WorkerView | None:
    """The worker of this node name, or of this part of it before or after the ``@`` if only one has it.

    Raises:
        click.ClickException: several have.
    """
    exact = [worker for worker in state.workers if worker.record.node == name]
    partly = [worker for worker in state.workers if name in names_of(worker.record.node)]
    if len(exact or partly) > 1:
        names = ", ".join(worker.record.node for worker in partly)
        raise click.ClickException(f"{name!r} may mean {names}: give the whole name")
    return next(iter(exact or partly), None)


def names_of(node: str) -> tuple[str, ...]:
    """Return the names that people may call a worker by: its node name, and each part of it."""
    return (node, *node.split("@", 1))


def unknown_worker(state: FleetState, name: str) -> str:
    """Say that there is no such worker, and which ones come close."""
    known = [worker.record.node for worker in state.workers]
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known[:3]
    hint = f"; did you mean {', '.join(close)}?" if close else ": none is registered"
    return f"no worker is called {name!r}{hint}"


def tell(cli: CLIContext, worker: str, command: str, *, answer_s: float = ANSWER_S, **arguments: Any) -> str:
    """Send a worker a command (:mod:`tasks.worker.celery.control`), and return its answer as one line.

    Raises:
        click.ClickException: there is no such worker, it does not answer, or it says no.
    """
    with client_of(cli) as client:
        state = state_of(client)
    found = find(state, worker)
    if found is None:
        raise click.ClickException(unknown_worker(state, worker))
    node = found.record.node
    with cli.app.connection_for_write() as connection:
        try:
            # With a limit this returns at the worker's answer; without one it would wait for the whole time.
            replies = cli.app.control.broadcast(
                command, arguments, destination=[node], reply=True, timeout=answer_s, limit=1, connection=connection
            )
        except (OperationalError, *connection.connection_errors) as error:
            raise click.ClickException(f"{command} of {node}: Redis cannot be reached ({error})") from error
    answer = replies[0][node] if replies else None
    if answer is None:
        raise click.ClickException(
            f"{node} did not answer within {answer_s:g} s; it is {found.condition}"
            + (f" ({found.reason})" if found.reason else "")
        )
    if "error" in answer:
        raise click.ClickException(f"{node}: {answer['error']}")
    return f"{node}: {answer['ok']}" + (f" ({answer['reason']})" if answer.get("reason") else "")
