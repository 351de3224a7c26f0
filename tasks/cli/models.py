"""``celery -A tasks models``: which there are, on this disk and loaded somewhere; ``show``, ``pull``, ``load``, …"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from tasks.cli.diagnosis.models import folder_of
from tasks.cli.overview.columns import aligned
from tasks.cli.overview.words import NOTHING, gib, percent
from tasks.cli.remote import client_of, state_of, tell
from tasks.errors import GenerationError, refuse
from tasks.messages.encoding import to_json
from tasks.models.description import describe
from tasks.models.files import read_model_size
from tasks.models.footprint import local_source
from tasks.models.reading import ModelFilesUnreadable
from tasks.models.routing import tier_of
from tasks.worker.engines.download import Download
from worker_config.catalogue import ModelNotAllowed, current_catalogue
from worker_config.environment import SettingError
from worker_config.settings import current_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from celery.bin.base import CLIContext

    from tasks.messages.registry import EngineState
    from worker_config.catalogue import Catalogue, ModelEntry

LOOK_S = 0.2
COLUMNS = ("model", "tier", "on this disk", "source", "loaded on")


@dataclass(slots=True, frozen=True)
class Line:
    """One model: ``disk`` is ``yes``, ``partly`` or ``no``, ``bytes`` its weights; ``workers`` says what each does with it."""

    model: str
    tier: str
    source: str
    disk: str
    bytes: int | None
    workers: dict[str, str]


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def models(ctx: click.Context, /, as_json: bool, **_: Any) -> None:
    """List the models that may be asked for, which of them are on this disk, and where they are loaded."""
    if ctx.invoked_subcommand is not None:
        return
    loaded, problem = _loaded(ctx.obj)
    entries = dict(_catalogue().models)
    for name in loaded:
        entry = _resolved(name)
        if entry is not None:
            entries.setdefault(name, entry)
    lines = [_line(entry, loaded.get(name, {})) for name, entry in entries.items()]
    if as_json:
        click.echo(to_json({"models": [asdict(line) for line in lines], "problem": problem}))
        return
    for row in aligned([COLUMNS, *(_row(line) for line in lines)]):
        click.echo(row)
    if problem:
        click.echo(f"warning: where they are loaded is not known: {problem}", err=True)


@models.command()
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def show(ctx: click.Context, /, model: str, as_json: bool, **_: Any) -> None:
    """Show what decides how a MODEL is served (context, sampling, templates, end tokens), and which file says so."""
    del ctx
    try:
        entry = _catalogue().resolve(model)
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
    """Fetch a MODEL to this machine, or what of it is missing, and ask the hub for news of it."""
    try:
        entry = _catalogue().resolve(model)
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
            raise click.ClickException("stopped; what has come is kept, and the next time goes on there") from None
    if download.source is None:
        raise click.ClickException(str(download.error))
    click.echo(f"{entry.name} is here: {download.source.path}")


def _add_order(name: str, about: str) -> None:
    """A command that has a worker do something with a model (:mod:`tasks.worker.celery.control`)."""

    @models.command(name, help=about)
    @click.argument("worker")
    @click.argument("model")
    @click.pass_context
    def order(ctx: click.Context, /, worker: str, model: str, **_: Any) -> None:
        click.echo(tell(ctx.obj, worker, f"{name}_model", name=model))


_add_order("load", "Have a WORKER load a MODEL, which stays as long as others do.")
_add_order("unload", "Have a WORKER end a MODEL once its requests are done, pinned or not.")
_add_order("pin", "Have a WORKER load a MODEL and keep it, whatever else is asked for.")


def _loaded(cli: CLIContext) -> tuple[dict[str, dict[str, str]], str]:
    """By model and worker what live workers do with it; and why that is not known, if it is not."""
    try:
        with client_of(cli) as client:
            state = state_of(client)
    except click.ClickException as error:
        return {}, error.message
    found: dict[str, dict[str, str]] = {}
    for worker in state.workers:
        for engine in worker.record.engines if worker.leased else ():
            found.setdefault(engine.model, {})[worker.record.node] = _doing(engine)
    return found, ""


def _doing(engine: EngineState) -> str:
    if engine.state == "downloading" and engine.fraction is not None:
        return f"downloading {percent(100 * engine.fraction)}"
    if engine.pinned and engine.state == "ready":
        return "pinned"
    return engine.state


def _catalogue() -> Catalogue:
    """The catalogue; one that cannot be read ends the command with one line, as it ends a worker."""
    try:
        return current_catalogue()
    except SettingError as error:
        refuse(os.EX_CONFIG, str(error), "A setting is wrong")


def _resolved(name: str) -> ModelEntry | None:
    try:
        return _catalogue().resolve(name)
    except ModelNotAllowed:
        return None


def _line(entry: ModelEntry, workers: dict[str, str]) -> Line:
    try:
        tier = tier_of(entry).name
    except GenerationError:
        tier = ""
    source = entry.source if entry.kind in ("hub", "path") else entry.kind
    disk, weights_bytes = _on_disk(entry)
    return Line(entry.name, tier, source, disk, weights_bytes, workers)


def _on_disk(entry: ModelEntry) -> tuple[str, int | None]:
    folder = folder_of(entry)
    if folder is None or not folder.is_dir():
        return "no", None
    try:
        size = read_model_size(folder).weights_bytes
    except ModelFilesUnreadable:
        return "partly", None
    return ("yes" if size is not None else "partly"), size


def _row(line: Line) -> tuple[str, ...]:
    disk = f"{gib(line.bytes)} GB" if line.disk == "yes" else line.disk.replace("no", NOTHING)
    where = ", ".join(f"{node}{'' if doing == 'ready' else f' ({doing})'}" for node, doing in line.workers.items())
    return line.model, line.tier, disk, line.source, where or NOTHING


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
