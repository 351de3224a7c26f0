"""HTTP: the gateway beside ``mlx_lm.server``, asked by the same client for the same streams."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from benchmarks.bench import Row
from benchmarks.contenders.dense import ensure_dense_model
from benchmarks.contenders.gateway import gateway
from benchmarks.contenders.peer import peer
from benchmarks.figures import at_least, at_most
from benchmarks.load import closed_loop, greedy
from benchmarks.processes import worker
from tasks.demo.bundled import MODEL

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.figures import Findings, Metrics
    from benchmarks.load import Ask

READERS, PROMPT_TOKENS = 16, 16
METRICS = (
    ("tokens_per_s", "tokens/s", "tokens/s", at_least(1.2)),
    ("first_p50_ms", "time to first token p50", "ms", at_most(0.7)),
    ("first_p99_ms", "time to first token p99", "ms", None),
    ("gap_p50_ms", "time between tokens p50", "ms", None),
)


def measure(bench: Bench, found: Findings) -> None:
    """Both run for the whole row, and idle while the other one is measured."""
    dense = ensure_dense_model(bench.say)
    with peer(bench, dense) as ask_peer, worker(bench, MODEL, READERS), gateway(bench, MODEL) as ours:
        asks: dict[str, Ask] = {"gateway": ours.ask, "peer": ask_peer}
        for ask in asks.values():  # kernels are compiled, connections made
            closed_loop(ask, greedy(4, PROMPT_TOKENS, 4, "warm"), 4)
        samples = bench.in_turns("http", {name: partial(_read, bench, ask) for name, ask in asks.items()})
    for metric, about, unit, target in METRICS:
        found.figure(
            f"{READERS} readers over HTTP: {about}, gateway / peer",
            samples.ratio("gateway", "peer", metric),
            "",
            target,
        )
        for name in asks:
            found.measured(f"{READERS} readers over HTTP: {about}, {name}", samples.values(name, metric), unit)


def _read(bench: Bench, ask: Ask, number: int) -> Metrics:
    requests = greedy(READERS * bench.size(3, 1), PROMPT_TOKENS, bench.size(20, 4), "http", number)
    return closed_loop(ask, requests, READERS).metrics()


ROW = Row("http", "The gateway beside mlx_lm.server: the same HTTP client, streams and model, in turns.", measure)
