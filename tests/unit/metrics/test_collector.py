from __future__ import annotations

import json
import threading
import time
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.metrics.collector import BUCKETS_MS, MODELS_MAX, OTHER_MODELS, MetricsCollector, Outcome


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Bench:
    """A collector and the clock that it reads."""

    def __init__(self, **bounds: int) -> None:
        self.clock = Clock()
        self.metrics = MetricsCollector(self.clock, **bounds)
        self._ids = iter(range(10**9))

    def request(
        self,
        total_s: float = 1.0,
        tokens: int = 10,
        outcome: Outcome = "succeeded",
        *,
        model: str = "m",
        wait_ms: float | None = None,
    ) -> None:
        """One request from its start to its end, its tokens evenly spaced."""
        task_id = str(next(self._ids))
        start = self.clock.now
        self.metrics.started(task_id, model, wait_ms)
        for index in range(tokens):
            self.clock.now = start + total_s * (index + 1) / tokens
            self.metrics.tokens(task_id)
        self.clock.now = start + total_s
        self.metrics.ended(task_id, outcome, prompt_tokens=7, cached_tokens=3)

    def snapshot(self) -> dict[str, Any]:
        return self.metrics.snapshot()


def test_one_request_of_a_second_and_100_tokens_is_100_tokens_a_second() -> None:
    """Exactly: the window starts at the earliest request's start."""
    bench = Bench()
    bench.request(total_s=1.0, tokens=100)
    said = bench.snapshot()
    assert said["tokens_per_s"] == 100.0
    assert said["requests_per_s"] == 1.0
    assert said["observed_s"] == 1.0
    assert said["prompt_tokens_per_s"] == 7.0


def test_throughput_is_the_workers_over_wall_clock_time() -> None:
    """Eight requests at once of a second and 100 tokens each are 800 tokens/s, whatever the sum of their latencies."""
    bench = Bench()
    for index in range(8):
        bench.metrics.started(str(index), "m")
    for step in range(100):
        bench.clock.now = 1_000.0 + (step + 1) / 100
        for index in range(8):
            bench.metrics.tokens(str(index))
    for index in range(8):
        bench.metrics.ended(str(index), "succeeded")
    assert bench.snapshot()["tokens_per_s"] == 800.0


def test_each_queue_has_its_own_rate() -> None:
    """Requests count for the queue that they came from, once they have ended, and for no other."""
    bench = Bench()
    for number in range(4):
        bench.metrics.started(f"s{number}", "small", queue="tier-under-3B")
    bench.metrics.started("l", "large", queue="tier-30B-plus")
    bench.metrics.started("given back", "large", queue="tier-30B-plus")
    bench.clock.now += 2.0
    for number in range(4):
        bench.metrics.ended(f"s{number}", "succeeded")
    bench.metrics.ended("given back", "released")
    assert bench.snapshot()["queues"] == {"tier-under-3B": {"requests_per_s": 2.0}}
    bench.clock.now += 2.0
    bench.metrics.ended("l", "failed")
    assert bench.snapshot()["queues"] == {
        "tier-under-3B": {"requests_per_s": 1.0},
        "tier-30B-plus": {"requests_per_s": 0.25},
    }
    bench.clock.now += 301.0
    assert bench.snapshot()["queues"] == {}


def test_time_that_nothing_ran_counts_after_the_first_request() -> None:
    """A second's work in ten seconds is a tenth of its rate."""
    bench = Bench()
    bench.request(total_s=1.0, tokens=100)
    bench.clock.now += 9.0
    assert bench.snapshot()["tokens_per_s"] == 10.0
    assert bench.snapshot()["requests_per_s"] == 0.1


def test_a_long_generation_shows_while_it_runs_and_counts_once() -> None:
    """Its tokens are in the rate before its end, and the end adds none."""
    bench = Bench()
    bench.metrics.started("long", "m")
    for _ in range(50):
        bench.clock.now += 0.1
        bench.metrics.tokens("long", 2)
    running = bench.snapshot()
    assert (running["running"], running["requests"]) == (1, 0)
    assert running["tokens_per_s"] == pytest.approx(20.0)
    assert running["models"]["m"]["running"] == 1
    bench.metrics.ended("long", "succeeded")
    ended = bench.snapshot()
    assert (ended["running"], ended["requests"]) == (0, 1)
    assert ended["completion_tokens"] == ended["totals"]["completion_tokens"] == 100


def test_a_generation_longer_than_the_window_keeps_its_rate() -> None:
    """What is older than five minutes leaves on both sides of the fraction, tokens and time."""
    bench = Bench()
    bench.metrics.started("long", "m")
    for _ in range(1_000):
        bench.clock.now += 1.0
        bench.metrics.tokens("long", 20)
    said = bench.snapshot()
    assert said["tokens_per_s"] == pytest.approx(20.0, rel=0.01)
    assert said["observed_s"] <= 300
    assert said["totals"]["completion_tokens"] == 20_000


def test_an_idle_workers_figures_go_to_zero_and_its_counters_stay() -> None:
    """After the window nothing is left but what was counted for ever."""
    bench = Bench()
    bench.request(wait_ms=5.0)
    bench.clock.now += 301.0
    said = bench.snapshot()
    for name in ("tokens_per_s", "prompt_tokens_per_s", "requests_per_s", "error_rate", "observed_s", "requests"):
        assert said[name] == 0
    for name in BUCKETS_MS:
        assert said[name]["count"] == 0
        assert said[name]["p95"] is None
        assert said["totals"]["histograms"][name]["count"] > 0
    assert said["totals"]["requests"] == 1


def test_an_early_failure_is_forgotten() -> None:
    """The error rate is the window's: one failure at the start does not mark a worker for ever."""
    bench = Bench()
    bench.request(outcome="failed")
    assert bench.snapshot()["error_rate"] == 1.0
    bench.request()
    assert bench.snapshot()["error_rate"] == 0.5
    bench.clock.now += 300.0
    bench.request()
    said = bench.snapshot()
    assert said["error_rate"] == 0.0
    assert said["totals"]["failed"] == 1


def test_every_way_to_end_is_counted() -> None:
    """By outcome, in the window and for ever, with the tokens of the prompts."""
    bench = Bench()
    outcomes: tuple[Outcome, ...] = ("succeeded", "failed", "cancelled", "succeeded")
    for outcome in outcomes:
        bench.request(outcome=outcome, tokens=3)
    said = bench.snapshot()
    for counts in (said, said["totals"], said["models"]["m"], said["models"]["m"]["totals"]):
        assert {name: counts[name] for name in ("requests", "succeeded", "failed", "cancelled")} == {
            "requests": 4,
            "succeeded": 2,
            "failed": 1,
            "cancelled": 1,
        }
        assert (counts["prompt_tokens"], counts["cached_tokens"], counts["completion_tokens"]) == (28, 12, 12)


def test_latency_and_first_token_begin_at_the_submission() -> None:
    """A wait in the queue is in both, and beside them."""
    bench = Bench()
    bench.request(total_s=1.0, tokens=10, wait_ms=500.0)
    said = bench.snapshot()
    assert said["queue_wait_ms"]["max"] == 500.0
    assert said["first_token_ms"]["p50"] == pytest.approx(600.0)
    assert said["latency_ms"]["p99"] == pytest.approx(1500.0)
    assert said["inter_token_ms"]["count"] == 9
    assert said["inter_token_ms"]["mean"] == pytest.approx(100.0)


def test_tokens_that_come_together_share_their_gap() -> None:
    """Four tokens after 100 ms are four gaps of 25."""
    bench = Bench()
    bench.metrics.started("a", "m")
    bench.metrics.tokens("a")
    bench.clock.now += 0.1
    bench.metrics.tokens("a", 4)
    gaps = bench.snapshot()["inter_token_ms"]
    assert (gaps["count"], gaps["min"], gaps["max"]) == (4, pytest.approx(25.0), pytest.approx(25.0))


def test_a_resumed_request_has_no_first_token() -> None:
    """Its first token came from another worker; nor is an unknown wait taken for none."""
    bench = Bench()
    bench.metrics.started("a", "m", resumed=True)
    bench.clock.now += 1.0
    bench.metrics.tokens("a")
    said = bench.snapshot()
    assert said["first_token_ms"]["count"] == said["queue_wait_ms"]["count"] == said["inter_token_ms"]["count"] == 0
    assert said["completion_tokens"] == 1


def test_what_comes_after_an_end_is_left_alone() -> None:
    """A late token, a second end and an unknown request change nothing."""
    bench = Bench()
    bench.metrics.started("a", "m")
    bench.clock.now += 1.0
    bench.metrics.ended("a", "cancelled")
    before = bench.snapshot()
    bench.metrics.tokens("a")
    bench.metrics.tokens("never")
    bench.metrics.ended("a", "failed")
    bench.metrics.started("b", "m")
    bench.metrics.tokens("b", 0)
    bench.metrics.ended("b", "cancelled")
    after = bench.snapshot()
    assert after["cancelled"] == before["cancelled"] + 1
    assert after["failed"] == after["completion_tokens"] == 0


@given(
    st.lists(st.floats(0.001, 30.0), min_size=1, max_size=60),
    st.lists(st.sampled_from(["a", "b", "c"]), min_size=60, max_size=60),
)
def test_percentiles_of_the_window_are_numpys(latencies_s: list[float], models: list[str]) -> None:
    """For the worker and for each model, over the last samples that the window keeps."""
    bench = Bench(window_samples=40, window_s=10_000)
    seen: list[tuple[str, float]] = []
    for latency_s, model in zip(latencies_s, models, strict=False):
        start = bench.clock.now
        bench.request(latency_s, tokens=1, model=model)
        seen.append((model, (bench.clock.now - start) * 1e3))
    said = bench.snapshot()
    kept = seen[-40:]
    for found, values in [
        (said["latency_ms"], [value for _, value in kept]),
        *((said["models"][name]["latency_ms"], [value for model, value in kept if model == name]) for name in "abc"
          if name in said["models"]),
    ]:  # fmt: skip
        assert found["count"] == len(values)
        for percent in (50, 95, 99):
            expected = np.percentile(values, percent, method="inverted_cdf") if values else None
            assert found[f"p{percent}"] == expected


def test_models_rates_add_up_to_the_workers() -> None:
    """They share one clock time, so a table of models sums to its last line."""
    bench = Bench()
    bench.request(total_s=1.0, tokens=100, model="a")
    bench.request(total_s=3.0, tokens=60, model="b", outcome="failed")
    said = bench.snapshot()
    assert said["models"]["a"]["tokens_per_s"] == 25.0
    assert said["models"]["b"]["tokens_per_s"] == 15.0
    assert said["tokens_per_s"] == 40.0
    assert said["models"]["b"]["error_rate"] == 1.0


def test_the_number_of_models_is_bounded() -> None:
    """Names come from outside: those beyond the bound are counted together, and none is lost."""
    bench = Bench()
    for index in range(MODELS_MAX + 10):
        bench.request(model=f"fake:{index}", tokens=1)
    said = bench.snapshot()
    assert len(said["models"]) == MODELS_MAX + 1
    assert said["models"][OTHER_MODELS]["requests"] == 10
    assert said["requests"] == MODELS_MAX + 10


def test_memory_does_not_grow() -> None:
    """Ten times the work takes no more room, also when nobody asks for a snapshot."""
    bench = Bench(window_samples=64)

    def work(requests: int) -> None:
        for _ in range(requests):
            bench.request(total_s=0.5, tokens=5, wait_ms=1.0)

    work(1_500)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        work(5_000)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 200_000


def test_reset_forgets_and_goes_on() -> None:
    """What was counted is gone; a request that runs counts from now, under its own model."""
    bench = Bench()
    bench.request(model="gone")
    bench.metrics.started("long", "m", 5.0)
    bench.clock.now += 100.0
    bench.metrics.tokens("long", 10)
    bench.metrics.reset()
    assert bench.snapshot()["totals"]["requests"] == 0
    assert set(bench.snapshot()["models"]) == {"m"}
    bench.clock.now += 2.0
    bench.metrics.tokens("long", 10)
    said = bench.snapshot()
    assert said["tokens_per_s"] == 5.0
    assert said["running"] == 1


def test_threads_lose_nothing() -> None:
    """Eight threads at once: every request and every token is counted, and snapshots come in between."""
    metrics = MetricsCollector()
    barrier = threading.Barrier(9)

    def work(name: int) -> None:
        barrier.wait(60)
        for index in range(200):
            task_id = f"{name}-{index}"
            metrics.started(task_id, f"m{name % 3}", 1.0)
            for _ in range(5):
                metrics.tokens(task_id)
            metrics.ended(task_id, "succeeded", prompt_tokens=2)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    barrier.wait(60)
    for _ in range(20):
        metrics.snapshot()
    for thread in threads:
        thread.join(60)
    totals = metrics.snapshot()["totals"]
    assert (totals["requests"], totals["completion_tokens"], totals["prompt_tokens"]) == (1_600, 8_000, 3_200)
    assert totals["histograms"]["latency_ms"]["count"] == 1_600


def test_a_snapshot_is_json_of_bounded_size() -> None:
    """It goes into every heartbeat's record."""
    bench = Bench()
    for index in range(MODELS_MAX * 3):
        bench.request(model=f"mlx-community/Some-Model-{index}B-Instruct-4bit", wait_ms=1.0)
    text = json.dumps(bench.snapshot(), allow_nan=False)
    assert json.loads(text) == bench.snapshot()
    assert len(text) < 40_000


def test_a_snapshot_of_a_full_window_is_cheap() -> None:
    """It runs in every heartbeat, whose budget is 10 ms in all; the best of several is far below."""
    bench = Bench()
    for index in range(3_000):
        bench.request(total_s=0.05, tokens=3, model=f"m{index % 4}", wait_ms=float(index % 97))
    assert bench.snapshot()["latency_ms"]["count"] == 2_048
    best_s = min(_seconds(bench) for _ in range(10))
    assert best_s < 0.03


def _seconds(bench: Bench) -> float:
    before = time.thread_time()
    bench.snapshot()
    return time.thread_time() - before


def test_the_first_snapshot_is_empty_and_whole() -> None:
    """A worker that has done nothing has every figure, as zero or None, and divides by no zero."""
    said = Bench().snapshot()
    assert said["tokens_per_s"] == said["running"] == said["totals"]["requests"] == 0
    assert said["latency_ms"]["p95"] is None
    assert said["models"] == {}
    bench = Bench()
    bench.metrics.started("a", "m")
    bench.metrics.tokens("a")
    assert bench.snapshot()["tokens_per_s"] == 0
