"""``celery -A tasks up``: Redis, a worker, beat, the gateway and Flower on this machine, for development."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from celery.bin.base import CeleryCommand

from tasks.cli.overview.terminal import printable
from tasks.cli.stack.part import Ports, parts_for
from tasks.cli.stack.stack import Stack, only_one, redis_for
from tasks.demo.bundled import MODEL, ensure_model
from tasks.demo.errors import SetupError
from tasks.demo.progress import progress
from tasks.names import COMMAND
from worker_config.data import data_folder
from worker_config.settings import current_settings, redis_was_given

if TYPE_CHECKING:
    from collections.abc import Iterator

LOOK_EVERY_S = 0.2
#: Names of parts are padded to the longest.
NAME_COLUMNS = 7
COLOURS = {"redis": "red", "worker": "cyan", "beat": "yellow", "gateway": "green", "flower": "magenta"}
NAMES = ("worker", "beat", "gateway", "flower")


@click.command(cls=CeleryCommand)
@click.option("--without", multiple=True, type=click.Choice(NAMES), help="Leave this part out; may be repeated.")
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    show_default="up in the user's data folder",
    help="Folder for data and logs.",
)
@click.option("--redis-port", default=6379, show_default=True, help="Port at which to find a Redis, or to start one.")
@click.option("--gateway-port", default=8000, show_default=True, help="Port of the gateway.")
@click.option("--flower-port", default=5555, show_default=True, help="Port of Flower.")
@click.argument("worker_arguments", nargs=-1)
@click.pass_context
def up(
    ctx: click.Context,
    /,
    without: tuple[str, ...],
    data: Path | None,
    redis_port: int,
    gateway_port: int,
    flower_port: int,
    worker_arguments: tuple[str, ...],
    **_: Any,
) -> None:
    """Run a whole fleet here, for development.

    It starts a worker, beat, the gateway and Flower, and ends them at Ctrl-C. Arguments after -- go to the worker.

    It uses the Redis that REDIS_URL names, or one at --redis-port, or else starts one, which keeps its data.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = (data or data_folder() / "up").expanduser().absolute()
    try:
        if current_settings().default_model == MODEL and "worker" not in without:
            with progress() as report:
                ensure_model(report)
        with only_one(folder), redis_for(folder, redis_port) as (url, about):
            _say("redis", f"{_shown(url)}, {about}")
            parts = list(parts_for(folder, Ports(gateway_port, flower_port), without, worker_arguments))
            with Stack(parts, url, folder / "logs", _say) as stack:
                _watch(stack, list(_next_steps(stack, url, folder)))
    except SetupError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        click.echo("ended")
        ctx.exit(0)


def _watch(stack: Stack, next_steps: list[str]) -> None:
    """Look after the parts until somebody interrupts; name the next commands once."""
    is_ready = False
    while True:
        for name, about in stack.check():
            _say(name, about)
        if not is_ready and stack.worker_is_ready():
            is_ready = True
            for line in next_steps:
                click.echo(line)
        time.sleep(LOOK_EVERY_S)


def _next_steps(stack: Stack, url: str, folder: Path) -> Iterator[str]:
    """Yield the commands to type in another terminal."""
    yield ""
    yield "Everything runs; Ctrl-C ends it. In another terminal:"
    if not redis_was_given() and url != current_settings().redis_url:
        yield f"  export REDIS_URL={url}"
    yield f'  {COMMAND} ask "Why is the sky blue?"'
    yield f"  {COMMAND} fleet"
    for part in stack.parts:
        for number, line in enumerate(part.about):
            yield f"  {'' if number else part.name:<{NAME_COLUMNS}}  {line}"
    yield f"  {'logs':<{NAME_COLUMNS}}  {folder / 'logs'}"
    yield ""


def _say(name: str, line: str) -> None:
    """One line of one part; a terminal shows its name in a colour of its own."""
    click.echo(f"{click.style(f'{name:<{NAME_COLUMNS}} |', fg=COLOURS[name])} {printable(line)}")


def _shown(url: str) -> str:
    from worker_config.redis_url import without_password

    return without_password(url)
