"""Shows the progress of a bulk job: two live lines on a terminal, a plain line now and then without one, and a summary."""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from tasks.cli.overview.words import clean, cut, rate
from tasks.fleet.words import age, counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tasks.bulk.finished import Finished
    from tasks.bulk.job import Job
    from tasks.bulk.record import JobRecord

#: Speeds are those of the last seconds.
WINDOW_S = 30.0
#: The interval of plain lines.
LINE_EVERY_S = 10.0
REFRESH_PER_S = 4
BAR_COLUMNS = 24
#: Why lines failed: so many reasons are shown.
MOST_REASONS = 3


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a job. ``left_s`` is ``None`` where nothing tells it."""

    done: int
    total: int
    failed: int
    tokens_per_s: float
    left_s: float | None
    workers: int
    in_flight: int

    @property
    def counts(self) -> str:
        """The lines that are done, and of how many if that is known."""
        if not self.total:
            return f"{self.done:,} done"
        return f"{self.done:,} of {self.total:,} ({100 * self.done // self.total}%)"

    @property
    def details(self) -> str:
        """The rest, the most important first."""
        left = f"{age(self.left_s)} left" if self.left_s is not None else "time left unknown"
        workers = counted(self.workers, "worker") if self.workers else "no worker is up"
        return f"{self.failed:,} failed · {rate(self.tokens_per_s)} tokens/s · {left} · {workers} · {self.in_flight} in flight"


class Speed:
    """Measures a job.

    Args:
        job: the job.
        clock: monotonic seconds.
    """

    def __init__(self, job: Job, clock: Callable[[], float] = time.monotonic) -> None:
        self._job = job
        self._clock = clock
        self._samples: deque[tuple[float, int, int]] = deque()

    def look(self) -> Progress:
        """Return the progress now."""
        now, record = self._clock(), self._job.record
        self._samples.append((now, record.done, record.completion_tokens))
        while self._samples[0][0] < now - WINDOW_S:
            self._samples.popleft()
        first_at, first_done, first_tokens = self._samples[0]
        passed_s = now - first_at
        lines_per_s = (record.done - first_done) / passed_s if passed_s else 0.0
        tokens_per_s = (record.completion_tokens - first_tokens) / passed_s if passed_s else 0.0
        left_s = (record.total - record.done) / lines_per_s if record.total and lines_per_s else None
        return Progress(
            record.done, record.total, record.failed, tokens_per_s, left_s, self._job.workers, self._job.in_flight
        )


def bar(progress: Progress, columns: int = BAR_COLUMNS) -> str:
    """A bar of so many columns; empty where the total is not known."""
    if not progress.total:
        return ""
    full = columns * progress.done // progress.total
    return "━" * full + "╌" * (columns - full)


def screen_lines(progress: Progress, columns: int) -> list[str]:
    """Return the lines for a terminal of this width."""
    return [cut(line, columns) for line in (f"{bar(progress)} {progress.counts}".strip(), progress.details)]


def summary(record: JobRecord, passed_s: float, written_before: int = 0) -> str:
    """The last line of a job, of which so many lines were in the output when it started."""
    if written_before and written_before == record.done and record.status == "completed":
        head = (
            f"completed: nothing to do, all {record.done:,} lines were written before, {record.failed:,} of them failed"
        )
    else:
        before = f" ({written_before:,} of them before)" if written_before else ""
        head = f"{record.status}: {record.done - record.failed:,} answered, {record.failed:,} failed{before}"
    tokens = f"{record.prompt_tokens:,} prompt and {record.completion_tokens:,} completion tokens"
    return f"{head}; {tokens}; {age(passed_s)}"


class Failures:
    """Counts why lines failed in this run: where all fail for one reason, nobody has to look for it in the output."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def note(self, finished: Iterable[Finished]) -> None:
        """Count those of these lines that have failed."""
        for line in finished:
            if line.error is not None:
                self._counts[line.error.code] += 1
                self._first.setdefault(line.error.code, f"{line.id}: {line.error}" if line.id else str(line.error))

    def lines(self) -> list[str]:
        """The most frequent reasons, each with the first line that has it."""
        return [
            f"{count:,} {code}, as {clean(self._first[code])}" for code, count in self._counts.most_common(MOST_REASONS)
        ]


@contextmanager
def shown(job: Job, *, quiet: bool) -> Iterator[Callable[[], None]]:
    """Show a job on standard error; gives a function that is called at each step."""
    if quiet:
        yield lambda: None
    elif sys.stderr.isatty() and find_spec("rich") is not None:
        with _live(Speed(job)) as show:
            yield show
    else:
        yield _plain(Speed(job))


@contextmanager
def _live(speed: Speed) -> Iterator[Callable[[], None]]:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(stderr=True, highlight=False)

    def render() -> Any:
        return Text("\n".join(screen_lines(speed.look(), console.width)))

    with Live(get_renderable=render, console=console, refresh_per_second=REFRESH_PER_S, transient=True):
        yield lambda: None


def _plain(speed: Speed) -> Callable[[], None]:
    said_at = time.monotonic()
    speed.look()

    def show() -> None:
        nonlocal said_at
        if time.monotonic() - said_at >= LINE_EVERY_S:
            said_at = time.monotonic()
            found = speed.look()
            click.echo(f"{found.counts}, {found.details.replace(' · ', ', ')}", err=True)

    return show
