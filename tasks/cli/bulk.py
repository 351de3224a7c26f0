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
from tasks.cli.job_progress import shown, summary
from tasks.cli.overview.words import NOTHING, age, clean
from tasks.cli.remote import client_of, refusal
from tasks.errors import BrokerUnavailable, GenerationError
from tasks.messages.encoding import to_json
from tasks.server.requirements import require_server

if TYPE_CHECKING:
    from celery import Celery

    from tasks.bulk.record import JobRecord

_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "": 1}
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
@click.option("--model", "-m", help="The model of lines that name none.")
@click.option("--max-tokens", type=int, help="The longest answer to lines that do not say.")
@click.option("--deadline", type=Seconds(), help="After so long (24h) the lines that are left end as expired.")
@click.option(
    "--tries", type=click.IntRange(1), default=3, show_default=True, help="How often a line is sent, at most."
)
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
    tries: int,
    quiet: bool,
    as_json: bool,
    **_: Any,
) -> None:
    """Answer the lines of INPUT into OUTPUT; - is a pipe. Killed at any time, the same command goes on.

    INPUT is a file of OpenAI's batch interface, or has parameters of generate in each line.
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
        )
        status = _answer(job, quiet=quiet)
    except BrokerUnavailable as error:
        raise refusal(error) from error
    except GenerationError as error:
        raise click.ClickException(str(error)) from error
    passed_s = time.monotonic() - began_at
    if as_json:
        click.echo(to_json({**asdict(job.record), "written_before": job.written_before}), err=True)
    else:
        click.echo(summary(job.record, passed_s, job.written_before), err=True)
    ctx.exit(status)


@bulk.command()
@click.argument("job", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def status(ctx: click.Context, /, job: str | None, as_json: bool, **_: Any) -> None:
    """Show bulk jobs of the last week, or one JOB: its id, or its output."""
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
    for record in found:
        click.echo(_line(record))


@bulk.command()
@click.argument("job")
@click.pass_context
def cancel(ctx: click.Context, /, job: str, **_: Any) -> None:
    """Have a JOB stop, named by its id or its output; what it has written stays, and its command goes on from there."""
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


def _answer(job: Job, *, quiet: bool) -> int:
    """Run a job to its end; the command's exit status."""
    before = signal.signal(signal.SIGTERM, _end)
    try:
        with job, shown(job, quiet=quiet) as show:
            for _ in job.steps():
                show()
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)
    return os.EX_TEMPFAIL if job.record.status == "cancelled" else os.EX_OK


def _end(_number: int, _frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def _find(records: list[JobRecord], name: str) -> JobRecord:
    """The job of this id, or of the beginning of one, or with this output.

    Raises:
        click.ClickException: there is none.
    """
    for record in records:
        if record.job_id.startswith(name) or (record.output != "-" and record.output == str(Path(name).absolute())):
            return record
    known = ", ".join(record.job_id for record in records[:3])
    raise click.ClickException(
        f"no bulk job is called {name!r}" + (f": there are {known}" if known else ": there is none")
    )


def _line(record: JobRecord) -> str:
    total = f" of {record.total:,}" if record.total else ""
    ago = age(max(0.0, time.time() - record.updated_at)) if record.updated_at else NOTHING
    return clean(
        f"{record.job_id}  {record.state}  {record.done:,}{total} done, {record.failed:,} failed  "
        f"{record.completion_tokens:,} tokens  {record.source} -> {record.output}  ({ago} ago)"
    )
