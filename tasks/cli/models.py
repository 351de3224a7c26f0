"""``celery -A tasks models``: which there are, on this disk and loaded somewhere; ``show``, ``pull``, ``load``, …"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from tasks.cli.diagnosis.models import folder_of
from tasks.cli.model_removal import NotRemovable, removable_folder, remove_folder, size_of_folder
from tasks.cli.overview.columns import aligned
from tasks.cli.overview.models import COLUMNS, doing, model_line, model_row
from tasks.cli.overview.plain import table_lines
from tasks.cli.overview.table import fitted
from tasks.cli.overview.terminal import printable, terminal_width
from tasks.cli.overview.words import NOTHING, percent
from tasks.cli.remote import client_of, state_of, tell
from tasks.errors import GenerationError, refuse
from tasks.hardware import detect
from tasks.messages.encoding import to_json
from tasks.models.description import describe
from tasks.models.footprint import local_source
from tasks.models.reading import ModelFilesUnreadable
from tasks.worker.engines.download import Download
from worker_config.catalogue import ModelNotAllowed, catalogue_of
from worker_config.environment import SettingError
from worker_config.settings import current_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from celery.bin.base import CLIContext

    from tasks.fleet.state import WorkerView
    from worker_config.catalogue import Catalogue, ModelEntry

LOOK_S = 0.2


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def models(ctx: click.Context, /, as_json: bool, **_: Any) -> None:
    """List models, and where they fit and run.

    For each model: whether it fits this machine, is on its disk, and which workers take its requests.
    """
    if ctx.invoked_subcommand is not None:
        return
    live, problem = _live_workers(ctx.obj)
    loaded = _loaded(live)
    entries = dict(this_catalogue().models)
    for name in loaded:
        entry = _resolved(name)
        if entry is not None:
            entries.setdefault(name, entry)
    settings = current_settings()
    hardware = detect(settings)
    lines = [
        model_line(entry, hardware, live, loaded.get(name, {}), settings.prefill_step_tokens)
        for name, entry in entries.items()
    ]
    if as_json:
        click.echo(to_json({"models": [asdict(line) for line in lines], "problem": problem}))
        return
    for row in table_lines(fitted(COLUMNS, [model_row(line) for line in lines], terminal_width())):
        click.echo(printable(row))
    if problem:
        click.echo(f"warning: which workers there are is not known: {problem}", err=True)


@models.command()
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def show(ctx: click.Context, /, model: str, as_json: bool, **_: Any) -> None:
    """Show how a MODEL is served, and why.

    Context, sampling defaults, templates and end tokens, each with the file that decides it.
    """
    del ctx
    try:
        entry = this_catalogue().resolve(model)
        folder = folder_of(entry)
        if folder is None or not folder.is_dir():
            raise click.ClickException(f"{entry.name} is not on this machine; `models pull` fetches a hub model")
        facts = describe(entry, folder)
    except (ModelNotAllowed, ModelFilesUnreadable) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(to_json({"model": entry.name, "folder": str(folder), "facts": [asdict(fact) for fact in facts]}))
        return
    click.echo(f"{entry.name}: {folder}")
    for row in aligned([("", "value", "said by"), *((fact.name, fact.value, fact.said_by) for fact in facts)]):
        click.echo(row)


@models.command()
@click.argument("model")
@click.pass_context
def pull(ctx: click.Context, /, model: str, **_: Any) -> None:
    """Fetch a MODEL, or update it.

    Files that are here already are not fetched again.
    """
    try:
        entry = this_catalogue().resolve(model)
        if entry.kind != "hub":
            source = local_source(entry)
            click.echo(f"{entry.name} is here already: {source.path if source else NOTHING}")
            return
    except (ModelNotAllowed, GenerationError) as error:
        raise click.ClickException(str(error)) from error
    with _progress(entry.name) as show:
        download = Download(entry, current_settings(), refresh=True)
        download.start()
        try:
            while not download.wait(LOOK_S):
                show(download.fraction, download.about)
        except KeyboardInterrupt:
            download.stop()
            raise click.ClickException("stopped; the fetched part is kept, and the next pull continues it") from None
    if download.source is None:
        raise click.ClickException(str(download.error))
    click.echo(f"{entry.name} is here: {download.source.path}")


@models.command()
@click.argument("model")
@click.option("--force", "-f", is_flag=True, help="Do not ask.")
@click.pass_context
def remove(ctx: click.Context, /, model: str, force: bool, **_: Any) -> None:
    """Remove a MODEL from this disk.

    A hub model is fetched again at the next request for it.
    """
    live, _ignored = _live_workers(ctx.obj)
    try:
        entry = this_catalogue().resolve(model)
        folder = removable_folder(entry, _loaded(live).get(entry.name, {}))
        size = size_of_folder(folder)
        if not force:
            click.confirm(f"Remove {size} in {folder}? Other programs may use the hub's cache too.", abort=True)
        remove_folder(folder)
    except (ModelNotAllowed, NotRemovable) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{entry.name} is removed: {size} in {folder}")


def _add_order(name: str, about: str) -> None:
    """A command that has a worker do something with a model (:mod:`tasks.worker.celery.control`)."""

    @models.command(name, help=about)
    @click.argument("worker")
    @click.argument("model")
    @click.pass_context
    def order(ctx: click.Context, /, worker: str, model: str, **_: Any) -> None:
        click.echo(tell(ctx.obj, worker, f"{name}_model", name=model))


_add_order("load", "Load a MODEL on a WORKER.")
_add_order("unload", "Unload a MODEL from a WORKER once its requests are done.")
_add_order("pin", "Load a MODEL on a WORKER and keep it loaded.")


def _live_workers(cli: CLIContext) -> tuple[list[WorkerView], str]:
    """The live workers; and why they are not known, if they are not."""
    try:
        with client_of(cli) as client:
            return [worker for worker in state_of(client).workers if worker.leased], ""
    except click.ClickException as error:
        return [], error.message


def _loaded(live: list[WorkerView]) -> dict[str, dict[str, str]]:
    """Return what live workers do with each model, by model and worker."""
    found: dict[str, dict[str, str]] = {}
    for worker in live:
        for engine in worker.record.engines:
            found.setdefault(engine.model, {})[worker.record.node] = doing(engine)
    return found


def this_catalogue() -> Catalogue:
    """The catalogue; one that cannot be read ends the command with one line, as it ends a worker."""
    try:
        return catalogue_of(current_settings())
    except SettingError as error:
        refuse(os.EX_CONFIG, str(error), "A setting is wrong")


def _resolved(name: str) -> ModelEntry | None:
    try:
        return this_catalogue().resolve(name)
    except ModelNotAllowed:
        return None


@contextmanager
def _progress(name: str) -> Iterator[Callable[[float | None, str], None]]:
    """Gives a function that shows how far a download is: a bar on a terminal, a line now and then without one."""
    if sys.stdout.isatty() and find_spec("rich") is not None:
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        with Progress(*columns, transient=True) as bar:
            task = bar.add_task(name, total=1.0)
            yield lambda fraction, about: bar.update(task, completed=fraction or 0.0, description=f"{name}  {about}")
    else:
        yield _Lines()


class _Lines:
    """A line for each new thing that is done, and for each tenth of it."""

    def __init__(self) -> None:
        self._said = ("", -1)

    def __call__(self, fraction: float | None, about: str) -> None:
        tenth = -1 if fraction is None else int(10 * fraction)
        if about and (tenth > self._said[1] or (fraction is None and about != self._said[0])):
            click.echo(about if fraction is None else f"{percent(100 * fraction)}  {about}")
            self._said = (about, tenth)
