"""Counts a worker's requests: rates and percentiles of the last minutes, and counters and histograms since its start.

One :class:`MetricsCollector` per worker. Each request says ``started``, ``tokens`` and ``ended``; the times are taken
here, by one monotonic clock, so that nothing is counted twice and a long generation shows while it runs. It knows neither
Redis nor Celery, any thread may call it, and its memory is bounded however long it runs.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import chain
from math import floor
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from tasks.metrics.distributions import Histogram, Window, ordered_by_label, summary
from tasks.metrics.failures import RecentFailures
from tasks.metrics.tally import Tally, sums

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: ``released`` ends an attempt and not the request: it went back to its queue, or another worker has it.
Outcome: TypeAlias = Literal["succeeded", "failed", "cancelled", "released"]

WINDOW_S = 300
WINDOW_SAMPLES = 2048
#: The number of models that are told apart; requests of further ones are counted under :data:`OTHER_MODELS`.
MODELS_MAX = 16
OTHER_MODELS = "(other)"

#: The number of queues that are told apart; requests of further ones are counted in the sums alone.
QUEUES_MAX = 32

#: The distributions, and the bounds of their histograms' buckets in ms. Histograms of several workers and versions are
#: added up bucket by bucket, so a changed bound breaks earlier counts.
BUCKETS_MS: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "latency_ms": (50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 120_000, 300_000, 600_000),
        "first_token_ms": (5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000),
        "inter_token_ms": (1, 2.5, 5, 10, 15, 25, 50, 75, 100, 150, 250, 500, 1_000, 2_500),
        "queue_wait_ms": (1, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000),
    }
)


@dataclass(slots=True)
class Running:
    """A request between its start and its end on this worker."""

    model: str
    queue: str
    started_at: float
    queue_wait_ms: float | None
    resumed: bool
    last_token_at: float | None = None

    def ms_since_submission(self, now: float) -> float:
        """From the producer's submission, as far as its wait is known, to now."""
        return (now - self.started_at) * 1e3 + (self.queue_wait_ms or 0.0)


@dataclass(slots=True)
class Second:
    """One second's share of the window, by model, and the earliest start among the requests that it touched.

    ``ended`` counts requests by the queue that they came from.
    """

    number: int
    earliest_start: float
    tallies: dict[str, Tally] = field(default_factory=dict)
    ended: Counter[str] = field(default_factory=Counter)


class MetricsCollector:
    """Counts one worker's requests and tokens.

    Args:
        clock: seconds that never go back.
        window_s: how far back rates and percentiles look.
        window_samples: how many values each distribution keeps.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        window_s: int = WINDOW_S,
        window_samples: int = WINDOW_SAMPLES,
    ) -> None:
        self._clock = clock
        self._window_s = window_s
        self._window_samples = window_samples
        self._lock = threading.Lock()
        self._running: dict[str, Running] = {}
        self.failures = RecentFailures(clock)
        self._clear()

    def started(
        self, task_id: str, model: str, queue_wait_ms: float | None = None, *, resumed: bool = False, queue: str = ""
    ) -> None:
        """The worker begins with a request.

        Args:
            task_id: the request, as ``tokens`` and ``ended`` will name it.
            model: the model that it asks for.
            queue_wait_ms: how long it waited before. It counts into latency and time to first token; ``None`` where
                nobody knows.
            resumed: whether an earlier attempt has emitted tokens, so that its next one is no first token.
            queue: where it came from.
        """
        with self._lock:
            now = self._clock()
            model = self._label(model)
            request = self._running[task_id] = Running(model, queue, now, queue_wait_ms, resumed)
            self._count(now, request, Tally(attempts=1))
            if queue_wait_ms is not None:
                self._observe(now, model, "queue_wait_ms", queue_wait_ms)

    def tokens(self, task_id: str, count: int = 1) -> None:
        """One step brought a request ``count`` tokens. One that does not run is left alone: it was just cancelled."""
        with self._lock:
            request = self._running.get(task_id)
            if request is None or count < 1:
                return
            now = self._clock()
            if request.last_token_at is not None:
                gap_ms = (now - request.last_token_at) * 1e3 / count
                self._observe(now, request.model, "inter_token_ms", gap_ms, count)
            elif not request.resumed:
                self._observe(now, request.model, "first_token_ms", request.ms_since_submission(now))
            request.last_token_at = now
            self._count(now, request, Tally(completion_tokens=count))

    def ended(self, task_id: str, outcome: Outcome, *, prompt_tokens: int = 0, cached_tokens: int = 0) -> None:
        """A request ended on this worker. One that does not run is left alone: an end counts once.

        Args:
            task_id: the request.
            outcome: how it ended here.
            prompt_tokens: the tokens of its prompt, cached ones included.
            cached_tokens: those that came out of the prompt cache.
        """
        with self._lock:
            request = self._running.pop(task_id, None)
            if request is None:
                return
            now = self._clock()
            share = Tally(prompt_tokens=prompt_tokens, cached_tokens=cached_tokens)
            setattr(share, outcome, 1)
            self._count(now, request, share)
            if outcome != "released":
                self._seconds[-1].ended[request.queue] += 1
                self._observe(now, request.model, "latency_ms", request.ms_since_submission(now))

    def reset(self) -> None:
        """Forget all counts. Running requests continue, and count from now."""
        with self._lock:
            self._clear()

    def snapshot(self) -> dict[str, Any]:
        """All figures, as JSON can carry them; cheap, since every heartbeat asks for them.

        At the top are the window's. Rates are over ``observed_s``, the time since the earliest start of a request in the
        window: ``tokens_per_s`` (generated), ``prompt_tokens_per_s``, ``requests_per_s``; ``error_rate`` is the failed
        share of the requests that ended. Each distribution of :data:`BUCKETS_MS` has ``count``, ``min``, ``max``,
        ``mean``, ``p50``, ``p95``, ``p99``. ``models`` has the same by model, and their rates add up to the worker's.
        ``queues`` has ``requests_per_s`` by the queue that requests came from.
        ``failures`` are the last requests that failed.
        ``totals`` counts since the start.
        """
        with self._lock:
            now = self._clock()
            edge = self._expire(now)
            observed_s = self._observed_s(now, edge)
            tallies = self._tallies()
            values = {name: window.copy() for name, window in self._windows.items()}
            totals = {model: tally.as_dict() for model, tally in self._totals.items()}
            histograms = {name: histogram.as_dict() for name, histogram in self._histograms.items()}
            running = [request.model for request in self._running.values()]
            ended = self._ended_by_queue()
        ordered = {name: ordered_by_label(window) for name, window in values.items()}
        everything = Tally()
        for tally in tallies.values():
            everything.add(tally)
        return {
            "window_s": self._window_s,
            "observed_s": observed_s,
            "running": len(running),
            **everything.as_dict(),
            **everything.rates(observed_s),
            # Python's sort merges runs that are sorted already at next to no cost.
            **{name: summary(sorted(chain.from_iterable(by_model.values()))) for name, by_model in ordered.items()},
            "models": {
                model: self._of_model(tallies.get(model, Tally()), running.count(model), observed_s)
                | {name: summary(by_model.get(model, ())) for name, by_model in ordered.items()}
                | {"totals": total}
                for model, total in totals.items()
            },
            "queues": {
                queue: {"requests_per_s": count / observed_s if observed_s > 0 else 0.0} for queue, count in ended
            },
            "failures": self.failures.snapshot(),
            "totals": {**sums(totals.values()), "histograms": histograms},
        }

    @staticmethod
    def _of_model(tally: Tally, running: int, observed_s: float) -> dict[str, Any]:
        return {"running": running, **tally.as_dict(), **tally.rates(observed_s)}

    def _clear(self) -> None:
        self._counted_from = self._clock()
        self._seconds: deque[Second] = deque(maxlen=self._window_s)
        self._totals: dict[str, Tally] = {}
        self._windows = {name: Window(self._window_samples) for name in BUCKETS_MS}
        self._histograms = {name: Histogram(bounds) for name, bounds in BUCKETS_MS.items()}
        for request in self._running.values():
            request.model = self._label(request.model)

    def _label(self, model: str) -> str:
        """Return the label that a model is counted under: names come from outside, so their number is bounded."""
        if model not in self._totals and len(self._totals) >= MODELS_MAX:
            model = OTHER_MODELS
        self._totals.setdefault(model, Tally())
        return model

    def _observe(self, now: float, model: str, name: str, value: float, times: int = 1) -> None:
        self._windows[name].add(now, model, value, times)
        self._histograms[name].add(value, times)

    def _count(self, now: float, request: Running, share: Tally) -> None:
        self._totals[request.model].add(share)
        number = floor(now)
        if not self._seconds or self._seconds[-1].number != number:
            self._seconds.append(Second(number, request.started_at))
        second = self._seconds[-1]
        second.earliest_start = min(second.earliest_start, request.started_at)
        second.tallies.setdefault(request.model, Tally()).add(share)

    def _expire(self, now: float) -> float:
        """Forget old seconds, and return the time at which the window begins, on a whole second."""
        edge = floor(now) - self._window_s + 1
        while self._seconds and self._seconds[0].number < edge:
            self._seconds.popleft()
        for window in self._windows.values():
            window.expire(edge)
        return edge

    def _observed_s(self, now: float, edge: float) -> float:
        starts = [second.earliest_start for second in self._seconds]
        starts += [request.started_at for request in self._running.values()]
        return now - max(min(starts), edge, self._counted_from) if starts else 0.0

    def _ended_by_queue(self) -> list[tuple[str, int]]:
        found: Counter[str] = Counter()
        for second in self._seconds:
            found.update(second.ended)
        return found.most_common(QUEUES_MAX)

    def _tallies(self) -> dict[str, Tally]:
        found: dict[str, Tally] = {}
        for second in self._seconds:
            for model, tally in second.tallies.items():
                found.setdefault(model, Tally()).add(tally)
        return found
