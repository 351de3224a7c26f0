"""Gateway: what HTTP adds to the first chunk of a stream. The fake engine takes no time for a step."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from benchmarks.bench import Row
from benchmarks.contenders import ours
from benchmarks.contenders.gateway import gateway
from benchmarks.figures import at_most
from benchmarks.load import Request, arrivals, closed_loop
from benchmarks.processes import processor_s, worker

if TYPE_CHECKING:
    from benchmarks.bench import Bench, Measure
    from benchmarks.contenders.gateway import Gateway
    from benchmarks.figures import Findings, Metrics
    from benchmarks.load import Ask

MODEL = "fake:0"
REQUEST = Request(prompt="one two three", max_tokens=1)
IN_FLIGHT = 32
ARRIVALS_PER_S = 100
SPENT = "processor time"
ALONE, ARRIVING = "1 in flight", f"{ARRIVALS_PER_S}/s arrive"


def measure(bench: Bench, found: Findings) -> None:
    """The same requests by ``.stream()`` and over HTTP."""
    with worker(bench, MODEL, IN_FLIGHT), gateway(bench, MODEL) as http:
        asks = {"stream": ours.asker(MODEL), "HTTP": http.ask}
        contenders: dict[str, Measure] = {}
        for name, ask in asks.items():
            closed_loop(ask, [REQUEST] * bench.size(100, 20), 4)
            contenders |= _loads(bench, name, ask)
        contenders[SPENT] = partial(_spent, bench, http)
        samples = bench.in_turns("gateway", contenders)
    found.measured("processor time of the gateway for a request", samples.values(SPENT, "each_us"), "us")
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


def _spent(bench: Bench, http: Gateway, _: int) -> Metrics:
    """What says of a gateway whether a core bears a load, on a machine that others use, too."""
    count, before_s = bench.size(500, 60), processor_s(http.process)
    closed_loop(http.ask, [REQUEST] * count, 8)
    return {"each_us": 1e6 * (processor_s(http.process) - before_s) / count}


def _loads(bench: Bench, name: str, ask: Ask) -> dict[str, Measure]:
    return {
        f"{name}, {ALONE}": lambda _: closed_loop(ask, [REQUEST] * bench.size(500, 60), 1).metrics(),
        f"{name}, {ARRIVING}": lambda _: arrivals(ask, [REQUEST] * bench.size(750, 100), ARRIVALS_PER_S).metrics(),
    }


ROW = Row("gateway", "What HTTP adds to a stream's first chunk: a fake engine whose steps take no time.", measure)
