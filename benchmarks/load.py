"""Load: requests, readers that send and read them, and what they saw."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from itertools import pairwise
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, TypeAlias

from benchmarks.figures import p50, p99

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    #: Sends one request and reads it to its end.
    Ask: TypeAlias = "Callable[[Request], Reading]"

#: Each is one token or two of any tokenizer.
WORDS = (  # noqa: SIM905  (a list of sixty lines otherwise)
    "time year people way day man thing woman life child world school state family student group country problem hand part "
    "place case week company system program question work government number night point home water room mother area money "
    "story fact month lot right study book eye job word business issue side kind head house service friend father power"
).split()
#: As many tokens as characters, with the tokenizers that take digits one by one.
COUNTING = ": 1, 2, 3,"


@dataclass(slots=True, frozen=True, kw_only=True)
class Request:
    """What every contender can be asked for. The prompt is raw text, so that all compute the same tokens."""

    prompt: str
    max_tokens: int
    temperature: float = 0.0
    logprobs: bool = False


@dataclass(slots=True)
class Reading:
    """What a reader saw of one request; times are of its process's performance counter, in seconds."""

    sent_at: float
    arrivals: list[float] = field(default_factory=list)
    tokens: int = 0
    ended_at: float = 0.0
    timing: dict[str, float | None] = field(default_factory=dict)

    @property
    def first_ms(self) -> float:
        """From sending to the first token."""
        return (self.arrivals[0] - self.sent_at) * 1000

    @property
    def gaps_ms(self) -> list[float]:
        """Between two arrivals."""
        return [(after - before) * 1000 for before, after in pairwise(self.arrivals)]


@dataclass(slots=True, frozen=True)
class Load:
    """What all readers saw."""

    readings: Sequence[Reading]

    @property
    def seconds(self) -> float:
        """From the first request's sending to the last one's end."""
        return max(reading.ended_at for reading in self.readings) - min(reading.sent_at for reading in self.readings)

    @property
    def tokens_per_s(self) -> float:
        """Of all readers together."""
        return sum(reading.tokens for reading in self.readings) / self.seconds

    @property
    def requests_per_s(self) -> float:
        """Of all readers together."""
        return len(self.readings) / self.seconds

    @property
    def firsts_ms(self) -> list[float]:
        """Times to the first token."""
        return [reading.first_ms for reading in self.readings if reading.arrivals]

    def metrics(self) -> dict[str, float]:
        """Throughput, and percentiles of what readers wait for."""
        gaps = [gap for reading in self.readings for gap in reading.gaps_ms]
        firsts = self.firsts_ms
        found = {"tokens_per_s": self.tokens_per_s, "requests_per_s": self.requests_per_s, "seconds": self.seconds}
        if firsts:
            found |= {"first_p50_ms": p50(firsts), "first_p99_ms": p99(firsts)}
        if gaps:
            found |= {"gap_p50_ms": p50(gaps), "gap_p99_ms": p99(gaps)}
        return found


def closed_loop(ask: Ask, requests: Sequence[Request], readers: int) -> Load:
    """So many readers at once, each of which sends the next request as soon as its last one has ended."""
    waiting: SimpleQueue[Request] = SimpleQueue()
    for request in requests:
        waiting.put(request)
    work = _Work(ask)

    def read() -> None:
        while True:
            try:
                work.do(waiting.get_nowait())
            except Empty:
                return

    return work.run([threading.Thread(target=read, daemon=True) for _ in range(readers)], pause_s=0)


def arrivals(ask: Ask, requests: Sequence[Request], per_s: float) -> Load:
    """Requests that arrive at an even rate, each with a reader of its own, whether the earlier ones have ended or not."""
    work = _Work(ask)
    threads = [threading.Thread(target=work.do, args=(request,), daemon=True) for request in requests]
    return work.run(threads, pause_s=1 / per_s)


class _Work:
    """Readings of several threads, and the first error of one."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._readings: list[Reading] = []
        self._error: BaseException | None = None

    def do(self, request: Request) -> None:
        if self._error is not None:
            return
        try:
            self._readings.append(self._ask(request))
        except BaseException as error:  # it belongs to the thread that waits  # noqa: BLE001
            self._error = error

    def run(self, threads: Sequence[threading.Thread], pause_s: float) -> Load:
        due = time.monotonic()
        for thread in threads:
            time.sleep(max(0.0, due - time.monotonic()))
            thread.start()
            due += pause_s
        for thread in threads:
            thread.join()
        if self._error is not None:
            raise self._error
        return Load(self._readings)


def words(count: int, *seed: object) -> str:
    """Text of about so many tokens. Another seed gives another text from the first word on, so no cache knows it."""
    draw = random.Random(repr(seed))
    return " ".join(draw.choice(WORDS) for _ in range(count))


def endless(count: int, *seed: object) -> str:
    """A prompt of about so many tokens that a model goes on from for ever, so that all answers are equally long."""
    return f"{words(max(1, count - len(COUNTING)), *seed)}{COUNTING}"


def greedy(count: int, prompt_tokens: int, max_tokens: int, *seed: object) -> list[Request]:
    """So many requests that are all alike but for their texts."""
    return [Request(prompt=endless(prompt_tokens, number, *seed), max_tokens=max_tokens) for number in range(count)]


def mixed(count: int, prompt_tokens: int, max_tokens: int, *seed: object) -> list[Request]:
    """Half of them sampled, each at a temperature of its own, and a quarter (half of it sampled) with log-probabilities."""
    return [
        Request(
            prompt=endless(prompt_tokens, number, *seed),
            max_tokens=max_tokens,
            temperature=0.5 + 0.7 * number / count if number % 2 else 0.0,
            logprobs=number % 8 in {3, 6},
        )
        for number in range(count)
    ]
