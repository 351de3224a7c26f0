"""Tries layouts with weights of the model's shapes, in about a second, and chooses the quickest."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

from tasks.engine.model.layout.host_product import MANY_ROWS
from tasks.engine.model.layout.panels import WHOLE, Layout, Panels, Streams
from tasks.engine.model.layout.record import ROWS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WIDTHS = (64, 32, WHOLE)
#: The bytes of weights that are multiplied in turn, so that none of them waits in a cache; with many rows that does not matter.
SAMPLE_BYTES = 16 << 20
MANY_ROWS_WEIGHTS = 1
#: A weight that is larger is tried with fewer outputs.
MOST_BYTES = 12 << 20
#: The number of times that each product is timed, all in turn; its least time counts. Fewer where the processor is slow: the
#: bound is of processor time, since a busy machine needs all rounds.
ROUNDS = 4
MOST_S = 1.2
#: The least gain of a layout over all numbers of rows, and the most that it may lose with one of them. Many rows count in the
#: first alone: threads share them, and in a trial these find a core taken by those that the BLAS leaves spinning.
LEAST_GAIN, WORST_GAIN = 1.05, 0.8
#: The least gain of another stream: other engines may want the core, too.
LEAST_STREAM_GAIN = 1.1


@dataclass(slots=True, frozen=True)
class Choice:
    """The layout for weights of one kind, and how many times as fast it was as weights as they come, for each of ``ROWS``."""

    layout: Layout
    gains: tuple[float, ...]


#: Weights as they come.
USUAL = Choice(Layout(), (1.0,) * len(ROWS))


def choose(shape: tuple[int, int], streams: Streams, threads: int, rows: Sequence[int] = ROWS) -> Choice:
    """Try products of ``rows`` rows with a weight ``[out, in]``."""
    outputs, inputs = shape
    outputs = max(min(outputs, MOST_BYTES // (4 * inputs)) // max(WIDTHS) * max(WIDTHS), 1)
    count = max(1, SAMPLE_BYTES // (4 * inputs * outputs))
    weights = [mx.random.normal((outputs, inputs), key=mx.random.key(n)) for n in range(count)]
    given = {number: mx.random.normal((number, inputs), key=mx.random.key(number)) for number in rows}
    mx.eval(weights, given)
    widths = [width for width in WIDTHS if width == WHOLE or outputs % width == shape[0] % width == 0]
    products: dict[tuple[int, int, int], Callable[[], list[Any]]] = {}
    for number, x in given.items():
        products[number, 0, 1] = _usual(weights, x)
    for width in widths:
        for shared in sorted({1, threads}):
            panels = [Panels.of(weight, Layout(width, (shared,) * len(ROWS)), streams) for weight in weights]
            for number, x in given.items():
                products[number, width, shared] = _paneled(panels, x)
    return best(widths, rows, threads, _least_seconds(products))


def best(
    widths: Sequence[int], rows: Sequence[int], threads: int, seconds: dict[tuple[int, int, int], float]
) -> Choice:
    """The best layout by what products took: by number of rows, width (0 as weights come) and number of streams."""
    choices = [_choice(width, rows, threads, seconds) for width in widths]
    few = sum(number < MANY_ROWS for number in rows)
    good = [choice for choice in choices if min(choice.gains[:few]) >= WORST_GAIN and _mean(choice.gains) >= LEAST_GAIN]
    return max(good, key=lambda choice: _mean(choice.gains), default=USUAL)


def _usual(weights: list[mx.array], x: mx.array) -> Callable[[], list[Any]]:
    return lambda: [x @ weight.T for weight in weights[: _count(x, weights)]]


def _paneled(weights: list[Panels], x: mx.array) -> Callable[[], list[Any]]:
    """Products by MLX; with many rows by numpy, which computes prompts of such weights."""
    given = x if len(x) < MANY_ROWS else np.asarray(x)
    return lambda: [weight(given) for weight in weights[: _count(x, weights)]]


def _count(x: mx.array, weights: Sequence[object]) -> int:
    return len(weights) if len(x) < MANY_ROWS else MANY_ROWS_WEIGHTS


def _least_seconds(products: dict[tuple[int, int, int], Callable[[], list[Any]]]) -> dict[tuple[int, int, int], float]:
    least = dict.fromkeys(products, math.inf)
    end = time.process_time() + MOST_S
    for _ in range(ROUNDS):
        for key, product in products.items():
            start = time.perf_counter()
            made = product()
            if isinstance(made[0], mx.array):
                mx.eval(made)
            least[key] = min(least[key], time.perf_counter() - start)
        if time.process_time() > end:
            break
    return least


def _choice(width: int, rows: Sequence[int], threads: int, seconds: dict[tuple[int, int, int], float]) -> Choice:
    quick = [
        threads if seconds[number, width, 1] > LEAST_STREAM_GAIN * seconds[number, width, threads] else 1
        for number in rows
        if number < MANY_ROWS
    ]
    quick += quick[-1:] * (len(ROWS) - len(quick))
    gains = [
        seconds[number, 0, 1] / seconds[number, width, streams] for number, streams in zip(rows, quick, strict=False)
    ]
    return Choice(Layout(width, tuple(quick)), tuple(round(gain, 2) for gain in gains))


def _mean(gains: Sequence[float]) -> float:
    return math.prod(gains) ** (1 / len(gains))
