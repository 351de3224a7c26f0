"""Gateway: what HTTP adds to the first chunk of a stream. The fake engine takes no time for a step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.bench import Row
from benchmarks.contenders import ours
from benchmarks.contenders.gateway import gateway
from benchmarks.figures import at_most
from benchmarks.load import Request, arrivals, closed_loop
from benchmarks.processes import worker

if TYPE_CHECKING:
    from benchmarks.bench import Bench, Measure
    from benchmarks.figures import Findings
    from benchmarks.load import Ask

MODEL = "fake:0"
REQUEST = Request(prompt="one two three", max_tokens=1)
IN_FLIGHT = 32
ARRIVALS_PER_S = 100
ALONE, ARRIVING = "1 in flight", f"{ARRIVALS_PER_S}/s arrive"


def measure(bench: Bench, found: Findings) -> None:
    """The same requests by ``.stream()`` and over HTTP."""
    with worker(bench, MODEL, IN_FLIGHT), gateway(bench, MODEL) as http:
        asks = {"stream": ours.asker(MODEL), "HTTP": http}
        contenders: dict[str, Measure] = {}
        for name, ask in asks.items():
            closed_loop(ask, [REQUEST] * bench.size(100, 20), 4)
            contenders |= _loads(bench, name, ask)
        samples = bench.in_turns("gateway", contenders)
    for load, metric, target in (
        (ALONE, "first_p50_ms", at_most(3)),
        (ALONE, "first_p99_ms", None),
        (ARRIVING, "first_p50_ms", None),
        (ARRIVING, "first_p99_ms", at_most(10)),
    ):
        own, over_http = (samples.values(f"{name}, {load}", metric) for name in asks)
        added = [more - less for more, less in zip(over_http, own, strict=True)]
        found.figure(f"added to the first chunk of a stream, {load}, {metric[6:9]}", added, "ms", target)
        found.measured(f"first chunk of .stream(), {load}, {metric[6:9]}", own, "ms")


def _loads(bench: Bench, name: str, ask: Ask) -> dict[str, Measure]:
    return {
        f"{name}, {ALONE}": lambda _: closed_loop(ask, [REQUEST] * bench.size(500, 60), 1).metrics(),
        f"{name}, {ARRIVING}": lambda _: arrivals(ask, [REQUEST] * bench.size(750, 100), ARRIVALS_PER_S).metrics(),
    }


ROW = Row("gateway", "What HTTP adds to a stream's first chunk: a fake engine whose steps take no time.", measure)
