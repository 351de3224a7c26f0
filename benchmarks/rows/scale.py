"""Scale: two workers beside two bare engines, and what many workers cost the one Redis."""

from __future__ import annotations

import os
import statistics
import threading
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.bench import Row
from benchmarks.contenders.dense import ensure_dense_model
from benchmarks.contenders.limit import Limit
from benchmarks.contenders.ours import asker, send
from benchmarks.figures import at_least
from benchmarks.load import Load, Request, closed_loop, greedy
from benchmarks.processes import QUEUE, worker
from benchmarks.simulated_fleet import SimulatedWorker
from tasks.broker.queues.references import referred
from tasks.demo.bundled import MODEL
from tasks.journal.items import Append
from tasks.journal.writer import Journal
from tasks.messages.journal import End, Start, Token
from tasks.sweep.ends import Ends
from tasks.sweep.sweep import Sweep
from tasks.worker.engines.process import blas_threads
from worker_config.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.bench import Bench, Measure
    from benchmarks.figures import Findings, Metrics

READERS = 16
FLEETS = (1, 10, 25, 50)
STREAMS_EACH = 4
SHORT, LONG = 8, 40
#: Two engines on one machine share its cores.
HALF = blas_threads(max(1, (os.cpu_count() or 2) // 2))
MICROSECONDS = 1_000_000


def measure(bench: Bench, found: Findings) -> None:
    """Real workers first, simulated ones after them."""
    _measure_workers(bench, found)
    _measure_fleets(bench, found)


def _measure_workers(bench: Bench, found: Findings) -> None:
    readers, tokens = bench.size(READERS, 4), bench.size(16, 4)
    dense = ensure_dense_model(bench.say)
    ask = asker(MODEL)
    with ExitStack() as stack:
        bench.say("scale: starting the contenders")
        limits = [stack.enter_context(Limit(bench, dense, HALF)) for _ in range(2)]

        def bare(count: int, seed: object) -> Metrics:
            return _together(
                limits[:count], greedy(2 * readers * count, 16, tokens, "bare", count, seed), readers
            ).metrics()

        def ours(count: int, seed: object) -> Metrics:
            requests = greedy(2 * readers * count, 16, tokens, "ours", count, seed)
            return closed_loop(ask, requests, readers * count).metrics()

        for count in (1, 2):
            stack.enter_context(worker(bench, MODEL, readers, HALF))
            ours(count, "warm")
            bare(count, "warm")
            contenders: dict[str, Measure] = {"ours": partial(ours, count), "bare": partial(bare, count)}
            samples = bench.in_turns(f"scale, {count} of each", contenders)
            target = at_least(0.9, 0.97) if count == 2 else None
            about = f"tokens/s with {readers} readers each, {count} worker(s) / {count} bare engine(s)"
            found.figure(about, samples.ratio("ours", "bare", "tokens_per_s"), target=target)
            found.measured(f"{count} worker(s)", samples.values("ours", "tokens_per_s"), "tokens/s")
            found.measured(f"{count} bare engine(s)", samples.values("bare", "tokens_per_s"), "tokens/s")


def _together(limits: list[Limit], requests: list[Request], readers: int) -> Load:
    """All engines at once, each with its share; the clock is the machine's, so their times can be put together."""
    loads: list[Load] = []

    def run(limit: Limit, share: list[Request]) -> None:
        loads.append(limit.run(share, readers))

    threads = [
        threading.Thread(target=run, args=(limit, requests[place :: len(limits)]), daemon=True)
        for place, limit in enumerate(limits)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Load([reading for load in loads for reading in load.readings])


def _measure_fleets(bench: Bench, found: Findings) -> None:
    """Redis's own processor time for each thing that a fleet does to it."""
    costs: dict[str, list[float | None]] = {}
    for size in (1, 5) if bench.quick else FLEETS:
        fleet = _Fleet(bench, size)
        samples = bench.in_turns(f"scale, {size} simulated workers", {"fleet": fleet.measure})
        fleet.leave()
        about = f"{size} simulated worker{'s' if size > 1 else ''}"
        tokens_per_s = [MICROSECONDS / sample for sample in samples.values("fleet", "token_us")]
        found.figure(f"{about}: tokens/s that one core of Redis carries, on paper", tokens_per_s, "tokens/s")
        for metric, what, unit in (
            ("token_us", "Redis's time for a token", "µs"),
            ("request_us", "Redis's time for a request without its tokens", "µs"),
            ("beat_us", "Redis's time for a heartbeat", "µs"),
            ("sweep_us", "Redis's time for a round of the sweep", "µs"),
            ("sweep_ms", "a round of the sweep", "ms"),
            ("requests_per_s", "requests/s that one process drove", "requests/s"),
            ("tokens_per_s", "tokens/s that one process drove", "tokens/s"),
        ):
            found.measured(f"{about}: {what}", samples.values("fleet", metric), unit)
        for metric, what in (("token_us", "token"), ("request_us", "request"), ("beat_us", "heartbeat")):
            costs.setdefault(what, []).append(samples.median("fleet", metric))
    sizes = [str(size) for size in ((1, 5) if bench.quick else FLEETS)]
    found.chart("Redis's time by workers", "µs", sizes, costs)


class _Fleet:
    """Workers without an engine: their records are a simulation, what they do to Redis is not.

    Requests are sent as producers send them and stored as results are. Each worker writes one token for each of its streams
    in one call, as a publisher does for a batch.
    """

    def __init__(self, bench: Bench, size: int) -> None:
        self._bench = bench
        self._client = bench.client
        self._journal = Journal(bench.client)
        self._workers = [SimulatedWorker(bench.client, number) for number in range(size)]
        for simulated in self._workers:
            simulated.beat()

    def leave(self) -> None:
        """Take the records out."""
        for simulated in self._workers:
            simulated.leave()
        self._client.flushall()

    def measure(self, _number: int) -> Metrics:
        """Two lengths of answers, whose difference is what a token costs; then heartbeats and sweeps."""
        batches = max(1, self._bench.size(50, 5) // len(self._workers))
        requests = batches * len(self._workers) * STREAMS_EACH
        short_us, _seconds = self._time(lambda: self._serve(batches, SHORT))
        long_us, long_s = self._time(lambda: self._serve(batches, LONG))
        token_us = max((long_us - short_us) / requests / (LONG - SHORT), 0.01)
        rounds = max(1, self._bench.size(500, 50) // len(self._workers))
        beat_us, _seconds = self._time(lambda: self._beat(rounds))
        sweep = Sweep(self._client, Ends(self._journal, _NoResults()), Settings(), "benchmark")
        sweep.round()
        looks = self._bench.size(20, 5)
        sweep_ms: list[float] = []
        sweep_us, _seconds = self._time(lambda: sweep_ms.extend(_timed(sweep.round) for _ in range(looks)))
        sweep.stop()
        return {
            "token_us": token_us,
            "request_us": short_us / requests - SHORT * token_us,
            "beat_us": beat_us / rounds / len(self._workers),
            "sweep_us": sweep_us / looks,
            "sweep_ms": statistics.median(sweep_ms),
            "requests_per_s": requests / long_s,
            "tokens_per_s": requests * LONG / long_s,
        }

    def _beat(self, rounds: int) -> None:
        for _ in range(rounds):
            for simulated in self._workers:
                simulated.beat()

    def _time(self, work: Callable[[], object]) -> tuple[float, float]:
        """Redis's processor time in µs, and seconds on the clock."""
        before, started = self._used_s(), time.perf_counter()
        work()
        seconds = time.perf_counter() - started
        return (self._used_s() - before) * MICROSECONDS, seconds

    def _used_s(self) -> float:
        used = self._client.info("cpu")
        return float(used["used_cpu_user"] + used["used_cpu_sys"])

    def _serve(self, batches: int, tokens: int) -> None:
        for _ in range(batches):
            for simulated in self._workers:
                self._serve_batch(f"{simulated.node}#{simulated.boot}", tokens)

    def _serve_batch(self, identity: str, tokens: int) -> None:
        from tasks import app

        for _ in range(STREAMS_EACH):
            send(Request(prompt="one two three", max_tokens=tokens), "fake:0")
        fetched = [str(referred(self._pop())) for _ in range(STREAMS_EACH)]
        claims = [(task_id, self._journal.claim(task_id, identity).nonce) for task_id in fetched]
        for n, entry in enumerate(_entries(tokens), start=1):
            self._journal.append([Append.of(task_id, n, entry, nonce) for task_id, nonce in claims])
        for task_id, _ in claims:
            app.backend.store_result(task_id, {"text": " word" * tokens}, "SUCCESS")

    def _pop(self) -> bytes:
        popped: Any = self._client.brpop([QUEUE], timeout=5)
        return bytes(popped[1])


def _entries(tokens: int) -> Iterator[Start | Token | End]:
    yield Start(attempt=1, model="fake:0", revision="fake", prompt_tokens=3, cached_tokens=0, prompt_hash="0" * 32)
    for index in range(tokens):
        yield Token(attempt=1, index=index, ids=[index], text=" word")
    yield End(attempt=1, index=tokens, finish_reason="length", usage={"total_tokens": tokens})


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000


class _NoResults:
    def final_entry(self, task_id: str) -> None:
        """No request has a result here."""

    def fail(self, task_id: str, error: Exception) -> None:
        """Nor gets one."""

    def revoke(self, task_id: str, message: str) -> None:
        """Nor is one revoked."""


ROW = Row("scale", "Two workers beside two bare engines, and what one Redis pays for up to 50 workers.", measure)
