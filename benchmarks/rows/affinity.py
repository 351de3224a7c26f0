"""Affinity: conversations with long system prompts over three workers, with and without lanes."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from celery import Celery

from benchmarks.bench import Row
from benchmarks.figures import at_least, at_most, p50, p99
from benchmarks.load import words
from benchmarks.processes import QUEUE, Worker, beat
from tasks.demo.bundled import MODEL
from tasks.names import GENERATE
from worker_config.celeryconfig import celery_options
from worker_config.settings import current_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    from benchmarks.bench import Bench, Measure
    from benchmarks.figures import Findings, Metrics
    from tasks.client.reader.chunks import Chunk
    from tasks.generate import GenerateTask

WORKERS = 3
SLOTS = 4
SYSTEM_TOKENS, TURN_TOKENS, ANSWER_TOKENS = 1500, 20, 8
KINDS, TURNS = 12, 4
#: Conversations of each kind: where all workers are alike, and where one is not.
SESSIONS, FEWER_SESSIONS = 2, 1
READERS = 6
#: Every engine has its part of a small machine, and a cache for its part of the conversations.
SETTINGS = {
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "CELERY_MLX_PROMPT_CACHE_BYTES": str(3 * 2**29),
    "CELERY_MLX_HEARTBEAT_S": "0.5",
}
TIMEOUT_S = 300
#: A slow worker's engine runs for one of three such times.
SLICE_S = 0.03


@dataclass(slots=True, frozen=True)
class Turn:
    """One turn as its reader saw it; ``first`` is the first request with this system prompt."""

    first_token_ms: float
    cached: float
    first: bool


def measure(bench: Bench, found: Findings) -> None:
    """All workers alike, then one of them slow, then one of them dead."""
    with ExitStack() as stack:
        stack.enter_context(beat(bench))
        fleet = [_worker(bench, stack) for _ in range(WORKERS)]
        _compare(bench, found, "three workers", ExitStack, SESSIONS, figures=True)
        engine = fleet[0].engine_pid()
        _compare(bench, found, "one of them 3 times as slow", lambda: _slow(engine), FEWER_SESSIONS)
        fleet[1].signal(signal.SIGKILL)
        _compare(bench, found, "one of them dead", ExitStack, FEWER_SESSIONS)


def _worker(bench: Bench, stack: ExitStack) -> Worker:
    started = Worker(bench, MODEL, SLOTS, SETTINGS)
    stack.callback(started.stop)
    started.wait_until_ready()
    return started


def _compare(
    bench: Bench,
    found: Findings,
    about: str,
    trouble: Callable[[], AbstractContextManager[object]],
    sessions: int,
    *,
    figures: bool = False,
) -> None:
    """The same conversations with and without lanes, while something is the matter."""

    def run(affinity: bool, number: int) -> Metrics:
        with trouble(), producer(affinity) as generate:
            return _converse(bench, generate, sessions, (about, affinity, number))

    contenders: dict[str, Measure] = {"off": partial(run, False), "on": partial(run, True)}
    samples = bench.in_turns(f"affinity, {about}", contenders)
    for name in ("off", "on"):
        found.measured(f"{about}, {name}: first token, p50", samples.values(name, "p50_ms"), "ms")
        found.measured(f"{about}, {name}: first token, p99", samples.values(name, "p99_ms"), "ms")
    if figures:
        found.figure("prompts found in a cache, with lanes", samples.values("on", "hits"), target=at_least(0.9))
        found.figure("prompts found in a cache, without", samples.values("off", "hits"))
        found.figure(
            "first token, p50, with lanes / without", samples.ratio("on", "off", "p50_ms"), target=at_most(0.5)
        )
    found.figure(
        f"{about}: first token, p99, with lanes / without", samples.ratio("on", "off", "p99_ms"), target=at_most(1.0)
    )


@contextmanager
def producer(affinity: bool) -> Iterator[GenerateTask]:
    """The task as a producer with or without affinity has it."""
    with Celery("affinity", set_as_current=False, include=["tasks.generate"]) as app:
        app.loader.import_default_modules()
        app.config_from_object(celery_options(replace(current_settings(), affinity=affinity)))
        yield app.tasks[GENERATE]


class _Readers:
    """Readers, each with one conversation after another."""

    def __init__(self, bench: Bench, generate: GenerateTask, sessions: int, seed: object) -> None:
        self._bench = bench
        self._generate = generate
        self._seed = seed
        order = [(kind, n) for kind in range(bench.size(KINDS, 3)) for n in range(bench.size(sessions, 1))]
        random.Random(repr(seed)).shuffle(order)
        self._waiting: SimpleQueue[tuple[int, int]] = SimpleQueue()
        for session in order:
            self._waiting.put(session)
        self._met: set[int] = set()
        self._errors: list[BaseException] = []
        self.seen: list[Turn] = []

    def run(self) -> None:
        """Until all conversations are over."""
        readers = [threading.Thread(target=self._read, daemon=True) for _ in range(self._bench.size(READERS, 2))]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        if self._errors:
            raise self._errors[0]

    def _read(self) -> None:
        try:
            while not self._errors:
                self._converse(*self._waiting.get_nowait())
        except Empty:
            return
        except BaseException as error:  # it belongs to the thread that waits  # noqa: BLE001
            self._errors.append(error)

    def _converse(self, kind: int, session: int) -> None:
        system = words(self._bench.size(SYSTEM_TOKENS, 200), "system", kind, self._seed)
        messages = [{"role": "system", "content": system}]
        for number in range(self._bench.size(TURNS, 2)):
            text = words(TURN_TOKENS, "turn", kind, session, number, self._seed)
            messages.append({"role": "user", "content": text})
            first = kind not in self._met
            self._met.add(kind)
            turn, answer = _ask(self._generate, messages, first=first)
            self.seen.append(turn)
            messages.append(answer)


def _converse(bench: Bench, generate: GenerateTask, sessions: int, seed: object) -> Metrics:
    """How many prompts were found in a cache that could have been, and when first tokens came."""
    readers = _Readers(bench, generate, sessions, seed)
    readers.run()
    again = [turn.cached for turn in readers.seen if not turn.first]
    times = [turn.first_token_ms for turn in readers.seen]
    return {"hits": sum(cached >= 0.5 for cached in again) / len(again), "p50_ms": p50(times), "p99_ms": p99(times)}


def _ask(generate: GenerateTask, messages: list[dict[str, str]], *, first: bool) -> tuple[Turn, dict[str, str]]:
    """One turn, and the model's message."""
    started = time.perf_counter()
    values = {"messages": messages, "model": MODEL, "max_tokens": ANSWER_TOKENS, "temperature": 0}
    result = generate.apply_async(kwargs=values, queue=QUEUE)
    chunks = list(_timed(result.stream(timeout=TIMEOUT_S)))
    # An answer that is empty ends where its first token would be.
    at = next(at for at, chunk in chunks if chunk.ids or chunk.finish_reason)
    usage = chunks[-1][1].usage
    assert usage is not None
    turn = Turn((at - started) * 1000, usage["cached_tokens"] / usage["prompt_tokens"], first)
    return turn, {"role": "assistant", "content": "".join(chunk.text for _, chunk in chunks) or "."}


def _timed(chunks: Iterable[Chunk]) -> Iterator[tuple[float, Chunk]]:
    for chunk in chunks:
        yield time.perf_counter(), chunk


@contextmanager
def _slow(pid: int) -> Iterator[None]:
    """Has a process run for a third of the time."""
    ending = threading.Event()

    def brake() -> None:
        while not ending.is_set():
            os.kill(pid, signal.SIGSTOP)
            ending.wait(2 * SLICE_S)
            os.kill(pid, signal.SIGCONT)
            ending.wait(SLICE_S)

    thread = threading.Thread(target=brake, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


ROW = Row("affinity", "Conversations with long system prompts over three workers, with and without lanes.", measure)
