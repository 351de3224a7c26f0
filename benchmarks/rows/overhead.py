"""Overhead: what a request costs beyond its engine's work. The fake engine takes no time for a step."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from benchmarks.bench import Row
from benchmarks.contenders.naive import naive
from benchmarks.contenders.ours import asker
from benchmarks.figures import at_least, at_most, p50
from benchmarks.load import Request, arrivals, closed_loop
from benchmarks.processes import worker

if TYPE_CHECKING:
    from benchmarks.bench import Bench, Measure
    from benchmarks.figures import Findings, Metrics, Samples
    from benchmarks.load import Ask, Load

MODEL = "fake:0"
REQUEST = Request(prompt="one two three", max_tokens=1)
IN_FLIGHT = 32
ARRIVALS_PER_S = 150
NOTHING = "a Celery task that does nothing"


def measure(bench: Bench, found: Findings) -> None:
    """Through one worker, then two, then four."""
    rates: dict[str, float | None] = {}
    with ExitStack() as stack:
        nothing = stack.enter_context(naive(bench, "threads", 4))
        for more, workers in ((1, 1), (1, 2), *([] if bench.quick else [(2, 4)])):
            for _ in range(more):
                stack.enter_context(worker(bench, MODEL, IN_FLIGHT))
            rates[str(workers)] = _through(bench, found, workers, nothing if workers == 1 else None)
    found.chart("Closed loop of 32, by workers", "requests/s", list(rates), {"ours": list(rates.values())})


def _through(bench: Bench, found: Findings, workers: int, nothing: Ask | None) -> float | None:
    """Measure with so many workers; returns the closed loop's rate."""
    ours = asker(MODEL)
    closed_loop(ours, [REQUEST] * bench.size(100, 20), 4)
    contenders: dict[str, Measure] = {
        "1 in flight": lambda _: _metrics(closed_loop(ours, [REQUEST] * bench.size(500, 60), 1)),
        f"closed loop of {IN_FLIGHT}": lambda _: _metrics(
            closed_loop(ours, [REQUEST] * bench.size(2000, 200), IN_FLIGHT)
        ),
    }
    if nothing is not None:
        rate = f"{ARRIVALS_PER_S}/s arrive"
        contenders[rate] = lambda _: _metrics(arrivals(ours, [REQUEST] * bench.size(750, 100), ARRIVALS_PER_S))
        contenders[NOTHING] = lambda _: _metrics(closed_loop(nothing, [REQUEST] * bench.size(300, 40), 1))
    through = f"through {workers} worker{'s' if workers > 1 else ''}"
    samples = bench.in_turns(f"overhead {through}", contenders)
    _report(found, through, samples, judged=workers == 1)
    return samples.median(f"closed loop of {IN_FLIGHT}", "requests_per_s")


def _metrics(load: Load) -> Metrics:
    """Times to the first chunk, and where they go: to the claim, in worker and engine, to the reader."""
    found = load.metrics()
    timings = [reading.timing for reading in load.readings if reading.timing]
    if timings:
        queued = [timing["queued_ms"] or 0.0 for timing in timings]
        inside = [timing["first_token_ms"] or 0.0 for timing in timings]
        outside = [
            reading.first_ms - (reading.timing["queued_ms"] or 0) - (reading.timing["first_token_ms"] or 0)
            for reading in load.readings
        ]
        found |= {"queued_ms": p50(queued), "inside_ms": p50(inside), "outside_ms": p50(outside)}
    return found


def _report(found: Findings, through: str, samples: Samples, *, judged: bool) -> None:
    closed = f"closed loop of {IN_FLIGHT}"
    first = f"submit to first chunk {through}"
    targets = {
        "1 in flight": (at_most(3, 1.5), at_most(6, 3)),
        f"{ARRIVALS_PER_S}/s arrive": (at_most(5, 2.5), at_most(15, 8)),
        closed: (None, None),
    }
    for load, (middle, tail) in targets.items():
        if samples.median(load, "first_p50_ms") is None:
            continue
        found.figure(f"{first}, {load}, p50", samples.values(load, "first_p50_ms"), "ms", middle if judged else None)
        found.figure(f"{first}, {load}, p99", samples.values(load, "first_p99_ms"), "ms", tail if judged else None)
        for metric, about in (
            ("queued_ms", "submit to claim"),
            ("inside_ms", "claim to first token"),
            ("outside_ms", "sending and reading"),
        ):
            found.measured(f"{about} {through}, {load}, p50", samples.values(load, metric), "ms")
    rate = samples.values(closed, "requests_per_s")
    found.figure(f"{closed} {through}", rate, "requests/s", at_least(450, 800) if judged else None)
    if judged:
        ratio = samples.ratio("1 in flight", NOTHING, "first_p50_ms")
        found.figure(f"{first}, 1 in flight, p50 / {NOTHING}, to its result", ratio)
        found.measured(f"{NOTHING}, to its result, p50", samples.values(NOTHING, "first_p50_ms"), "ms")


ROW = Row("overhead", "What a request costs beyond its engine's work: a fake engine whose steps take no time.", measure)
