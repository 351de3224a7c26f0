"""Limit, peer, naive and ours: the same requests on the bundled model, in turns."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.bench import Row
from benchmarks.contenders.dense import ensure_dense_model
from benchmarks.contenders.limit import Limit
from benchmarks.contenders.naive import naive
from benchmarks.contenders.ours import asker
from benchmarks.contenders.peer import peer
from benchmarks.figures import at_least, at_most
from benchmarks.load import closed_loop, greedy, mixed
from benchmarks.processes import worker
from tasks.demo.bundled import MODEL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.bench import Bench, Measure
    from benchmarks.figures import Findings, Metrics, Samples, Target
    from benchmarks.load import Load, Request

    #: Answers these requests, so many at once.
    Contender = Callable[[Sequence[Request], int], Load]

SLOTS = 32
CONTENDERS = ("limit", "ours", "peer", "naive, prefork 2", "naive, threads 1")
SHORT, LONG = 16, 200
METRICS = {
    "tokens_per_s": "tokens/s",
    "first_p50_ms": "ms",
    "first_p99_ms": "ms",
    "gap_p50_ms": "ms",
    "gap_p99_ms": "ms",
}
NAMES = {
    "tokens_per_s": "tokens/s",
    "first_p50_ms": "time to first token p50",
    "first_p99_ms": "time to first token p99",
    "gap_p50_ms": "time between tokens p50",
    "gap_p99_ms": "time between tokens p99",
}


@dataclass(slots=True, frozen=True)
class Cell:
    """One load: so many readers, each of which asks ``waves`` times."""

    readers: int
    waves: int
    max_tokens: int
    prompt_tokens: int = SHORT
    mix: bool = False
    naive: bool = False

    @property
    def name(self) -> str:
        """How the report calls it."""
        prompt = "short prompts" if self.prompt_tokens == SHORT else "long prompts"
        readers = f"{self.readers} reader{'s' if self.readers > 1 else ''}"
        return f"{readers}, {prompt}, {'mixed parameters' if self.mix else 'greedy'}"

    def requests(self, number: int, waves: int) -> list[Request]:
        """The requests of one repeat: the same for every contender, new to all of them."""
        make = mixed if self.mix else greedy
        return make(self.readers * waves, self.prompt_tokens, self.max_tokens, self.name, number)


#: The cells with targets have five waves; naive would take minutes where it shows nothing new.
FULL = (
    Cell(16, 5, 20, naive=True),
    Cell(16, 5, 20, mix=True),
    Cell(1, 2, 12, naive=True),
    Cell(4, 1, 12),
    Cell(32, 1, 12),
    Cell(1, 2, 12, mix=True),
    Cell(4, 1, 12, mix=True),
    Cell(32, 1, 12, mix=True),
    Cell(1, 1, 12, LONG),
    Cell(4, 1, 12, LONG),
    Cell(16, 1, 12, LONG),
    Cell(4, 1, 12, LONG, mix=True),
)
QUICK = (Cell(4, 1, 6, naive=True), Cell(4, 1, 6, mix=True))

#: By prompt tokens, mix, other contender and metric: what is asked of every cell that has them ...
TARGETS: Mapping[tuple[int, bool, str, str], Target] = {
    (SHORT, False, "limit", "tokens_per_s"): at_least(1.25, 1.5),
    (LONG, False, "limit", "tokens_per_s"): at_least(1.15, 1.3),
    (LONG, False, "peer", "tokens_per_s"): at_least(1.15, 1.3),
    (LONG, False, "peer", "gap_p99_ms"): at_most(1.0, 0.7),
}
#: ... and what is asked of 16 readers alone.
TARGETS_OF_16: Mapping[tuple[int, bool, str, str], Target] = {
    (SHORT, False, "peer", "tokens_per_s"): at_least(1.5, 2),
    (SHORT, True, "peer", "tokens_per_s"): at_least(1.5, 2),
    (SHORT, False, "peer", "first_p50_ms"): at_most(1.0, 0.8),
    (SHORT, False, "peer", "first_p99_ms"): at_most(1.0, 0.8),
    (SHORT, False, "naive, prefork 2", "tokens_per_s"): at_least(5, 7),
    (SHORT, False, "naive, threads 1", "tokens_per_s"): at_least(5, 7),
}


def measure(bench: Bench, found: Findings) -> None:
    """All contenders run for the whole row, and idle while another one is measured."""
    dense = ensure_dense_model(bench.say)
    with ExitStack() as stack:
        bench.say("throughput: starting the contenders")
        limit = stack.enter_context(Limit(bench, dense))
        ask_peer = stack.enter_context(peer(bench, dense))
        stack.enter_context(worker(bench, MODEL, SLOTS))
        fast: dict[str, Contender] = {
            "ours": partial(closed_loop, asker(MODEL)),
            "limit": limit.run,
            "peer": partial(closed_loop, ask_peer),
        }
        slow: dict[str, Contender] = {}
        for pool, concurrency in (("threads", 1), *([] if bench.quick else [("prefork", 2)])):
            ask = stack.enter_context(naive(bench, pool, concurrency, dense))
            slow[f"naive, {pool} {concurrency}"] = partial(closed_loop, ask)
        for contender in fast.values():  # kernels are compiled, caches filled
            contender(greedy(4, SHORT, 4, "warm"), 4)
        measured: dict[Cell, Samples] = {}
        for cell in QUICK if bench.quick else FULL:
            measured[cell] = _measure_cell(bench, cell, fast, slow)
            _report(found, cell, measured[cell])  # should a later one fail, this one's figures are there
    _draw(found, measured)


def _measure_cell(bench: Bench, cell: Cell, fast: Mapping[str, Contender], slow: Mapping[str, Contender]) -> Samples:
    contenders: dict[str, Measure] = {name: partial(_ask, cell, cell.waves, run) for name, run in fast.items()}
    if cell.naive:
        contenders |= {name: partial(_ask, cell, 1, run) for name, run in slow.items()}
    return bench.in_turns(cell.name, contenders)


def _ask(cell: Cell, waves: int, run: Contender, number: int) -> Metrics:
    return run(cell.requests(number, waves), cell.readers).metrics()


def _report(found: Findings, cell: Cell, samples: Samples) -> None:
    targets = {**TARGETS, **(TARGETS_OF_16 if cell.readers == 16 else {})}
    for other in CONTENDERS:
        if other == "ours" or samples.median(other, "tokens_per_s") is None:
            continue
        compared = ["tokens_per_s"] if other != "peer" else list(METRICS)
        for metric in compared:
            target = targets.get((cell.prompt_tokens, cell.mix, other, metric))
            found.figure(
                f"{cell.name}: {NAMES[metric]}, ours / {other}", samples.ratio("ours", other, metric), "", target
            )
    for contender in CONTENDERS:
        for metric, unit in METRICS.items():
            if samples.median(contender, metric) is not None:
                found.measured(f"{cell.name}: {NAMES[metric]}, {contender}", samples.values(contender, metric), unit)


def _draw(found: Findings, measured: Mapping[Cell, Samples]) -> None:
    for prompt_tokens, mix in ((SHORT, False), (SHORT, True), (LONG, False)):
        cells = sorted(
            (cell for cell in measured if cell.prompt_tokens == prompt_tokens and cell.mix == mix),
            key=lambda cell: cell.readers,
        )
        if not cells:
            continue
        about = cells[0].name.partition(", ")[2]
        categories = [str(cell.readers) for cell in cells]
        for metric, title in (("tokens_per_s", "Tokens/s"), ("first_p50_ms", "Time to first token p50")):
            series = {name: [measured[cell].median(name, metric) for cell in cells] for name in CONTENDERS}
            series = {name: values for name, values in series.items() if any(values)}
            found.chart(f"{title} by readers, {about}", METRICS[metric], categories, series)


ROW = Row("throughput", "The limit, mlx_lm.server, a naive Celery task and ours, on the same requests.", measure)
