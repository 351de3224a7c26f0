"""``celery -A tasks bulk``: a file of requests answered into a file; ``run``, ``status``, ``cancel``."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from tasks.bulk.job import Job, Options
from tasks.bulk.record import Records
from tasks.bulk.requests import Requests
from tasks.cli.job_progress import Failures, shown, summary
from tasks.cli.overview.plain import table_lines
from tasks.cli.overview.table import Column, fitted
from tasks.cli.overview.terminal import printable, terminal_width
from tasks.cli.overview.words import NOTHING, clean
from tasks.cli.remote import client_of, refusal
from tasks.errors import BrokerUnavailable, GenerationError
from tasks.fleet.words import age
from tasks.messages.encoding import to_json
from tasks.server.requirements import require_server

if TYPE_CHECKING:
    from celery import Celery

    from tasks.bulk.record import JobRecord

_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "": 1}
COLUMNS = (
    Column("job", 0),
    Column("state", 1),
    Column("done", 2, justify="right"),
    Column("failed", 3, justify="right"),
    Column("tokens", 5, justify="right"),
    Column("seen", 6, justify="right"),
    Column("output", 4, least=12),
    Column("input", 7, least=12),
)
INTERRUPTED = 128 + signal.SIGINT


class Seconds(click.ParamType[float]):
    """A time as ``90``, ``90s``, ``30m``, ``24h`` or ``2d``."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The seconds."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", str(value))
        if found is None or float(found[1]) == 0:
            self.fail(f"{value!r}: give seconds above 0, or a time as 30m, 24h or 2d", param, ctx)
        return float(found[1]) * _UNITS_S[found[2]]


@click.group()
def bulk(**_: Any) -> None:
    """Answer a file of requests into a file, on idle slots."""


@bulk.command()
@click.argument("source", metavar="INPUT")
@click.argument("output")
@click.option("--model", "-m", show_default="the setting default_model", help="Model for lines that name none.")
@click.option("--max-tokens", type=click.IntRange(1), help="Most tokens in an answer, for lines that set no limit.")
@click.option(
    "--deadline",
    type=Seconds(),
    show_default="none",
    help="Time such as 30m or 24h, after which unanswered lines expire.",
)
@click.option("--errors", metavar="FILE", show_default="OUTPUT", help="File for lines that fail.")
@click.option("--tries", type=click.IntRange(1), default=3, show_default=True, help="Attempts for each line.")
@click.option("--quiet", "-q", is_flag=True, help="Show no progress.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object on standard error.")
@click.pass_context
def run(
    ctx: click.Context,
    /,
    source: str,
    output: str,
    model: str | None,
    max_tokens: int | None,
    deadline: float | None,
    errors: str | None,
    tries: int,
    quiet: bool,
    as_json: bool,
    **_: Any,
) -> None:
    """Answer the lines of INPUT into OUTPUT.

    INPUT is a JSONL file: lines of OpenAI's batch interface, or parameters of generate. "-" stands for a pipe. If the
    command is killed, the same command continues the job.
    """
    defaults = {"model": model, "max_tokens": max_tokens}
    began_at = time.monotonic()
    try:
        require_server(ctx.obj.app)
        job = Job(
            _app(ctx),
            sys.stdin.buffer if source == "-" else source,
            sys.stdout.buffer if output == "-" else output,
            {name: value for name, value in defaults.items() if value is not None},
            Options(deadline_s=deadline, tries=tries),
            errors,
        )
        failures = Failures()
        status = _answer(job, failures, quiet=quiet)
    except BrokerUnavailable as error:
        raise refusal(error) from error
    except GenerationError as error:
        raise click.ClickException(str(error)) from error
    except BrokenPipeError:
        click.echo("nobody reads the output any more: waiting requests were taken back", err=True)
        raise  # click ends the process without another word
    passed_s = time.monotonic() - began_at
    if as_json:
        click.echo(to_json({**asdict(job.record), "written_before": job.written_before}), err=True)
    else:
        click.echo("\n".join([summary(job.record, passed_s, job.written_before), *failures.lines()]), err=True)
    ctx.exit(status)


@bulk.command()
@click.argument("job", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def status(ctx: click.Context, /, job: str | None, as_json: bool, **_: Any) -> None:
    """Show the jobs of the last week.

    JOB shows one of them: its id, the beginning of its id, or its output.
    """
    with client_of(ctx.obj) as client:
        try:
            records = Records(client).all()
        except BrokerUnavailable as error:
            raise refusal(error) from error
    found = records if job is None else [_find(records, job)]
    if as_json:
        click.echo(to_json({"jobs": [{**asdict(record), "state": record.state} for record in found]}))
        return
    if not found:
        click.echo("no bulk jobs")
    else:
        for line in table_lines(fitted(COLUMNS, [_row(record) for record in found], terminal_width())):
            click.echo(printable(line))


@bulk.command()
@click.argument("job")
@click.pass_context
def cancel(ctx: click.Context, /, job: str, **_: Any) -> None:
    """Stop a job.

    JOB is its id, the beginning of its id, or its output. Written answers stay, and the same `bulk run` continues it.
    """
    with client_of(ctx.obj) as client:
        try:
            records = Records(client)
            record = _find(records.all(), job)
            if record.state == "running":
                records.cancel(record.job_id)
                click.echo(f"{record.job_id}: its driver stops within a second or two")
                return
            count = Requests(ctx.obj.app, Options().priority).withdraw_all(record.job_id)
        except BrokerUnavailable as error:
            raise refusal(error) from error
    click.echo(f"{record.job_id}: {record.state}; {count} of its requests were taken back")


def _app(ctx: click.Context) -> Celery:
    import_module("..generate", __package__)  # an application may have no other reason to load it
    app: Celery = ctx.obj.app
    return app


def _answer(job: Job, failures: Failures, *, quiet: bool) -> int:
    """Run a job to its end; the command's exit status."""
    before = signal.signal(signal.SIGTERM, _end)
    try:
        with job, shown(job, quiet=quiet) as show:
            for finished in job.steps():
                failures.note(finished)
                show()
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)
    return os.EX_TEMPFAIL if job.record.status == "cancelled" else os.EX_OK


def _end(_number: int, _frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def _find(records: list[JobRecord], name: str) -> JobRecord:
    """The job of this id, or of the beginning of one, or the latest with this output.

    Raises:
        click.ClickException: there is none, or it is not clear which.
    """
    written = [record for record in records if record.output == str(Path(name).absolute())]
    found = written[:1] or [record for record in records if record.job_id.startswith(name)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(record.job_id for record in (found or records)[:3])
    if found:
        raise click.ClickException(f"the ids of {len(found)} bulk jobs begin with {name!r}: {known}: give more of it")
    raise click.ClickException(
        f"no bulk job is called {name!r}" + (f"; the latest are {known}" if known else ": there is none")
    )


def _row(record: JobRecord) -> tuple[str, ...]:
    """Its cells, in the order of :data:`COLUMNS`."""
    return (
        record.job_id,
        record.state,
        f"{record.done:,} of {record.total:,}" if record.total else f"{record.done:,}",
        f"{record.failed:,}",
        f"{record.completion_tokens:,}",
        age(max(0.0, time.time() - record.updated_at)) if record.updated_at else NOTHING,
        _short(record.output),
        _short(record.source),
    )


def _short(path: str) -> str:
    """A path as it is typed here."""
    here = Path(path)
    return clean(here.relative_to(Path.cwd()) if here.is_relative_to(Path.cwd()) else path)
