"""Rows in slots: keys and values that begin at position 0 and are as long as their row, however long others are.

mlx-lm's batch caches align rows on the right, so all get the same number of tokens in a step. Here a step may bring one row a
token and another one several, of which some count in the end: a row's length says which. For models all of whose caches are
mlx-lm's plain ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import KVCache

from tasks.engine.model.batching.caches import last_places
from tasks.engine.model.batching.slot_layer import Call, SlotLayer, grown, room
from tasks.engine.sampling.chain import places

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlx.nn.layers.base import Module

    from tasks.engine.model.batching.head import Head
    from tasks.engine.model.layout.threads import HostThreads


def fit(cache: list[Any]) -> bool:
    """Whether rows with such caches can be kept in slots."""
    return all(type(layer) is KVCache for layer in cache)


class SlotCaches:
    """The slots of some rows, in order; ``lengths`` says how many tokens each row has.

    ``pause`` is called in the middle of each call of the model, once for each layer.
    """

    def __init__(self, layers: list[SlotLayer], lengths: list[int], pause: Callable[[], None] | None = None) -> None:
        self._layers = layers
        self._lengths = lengths
        self._pause = pause

    @classmethod
    def merge(cls, caches: list[list[Any]], pause: Callable[[], None] | None = None) -> Self:
        """See :meth:`tasks.engine.model.batching.caches.Caches.merge`."""
        # A layer without attention, as nemotron-nas has them, writes nothing into its cache.
        lengths = [max(int(layer.offset) for layer in layers) for layers in caches]
        return cls([_merged(list(layers), lengths) for layers in zip(*caches, strict=True)], lengths, pause)

    @property
    def nbytes(self) -> int:
        """The bytes of all slots."""
        return sum(array.nbytes for array in self._arrays())

    def join(self, other: SlotCaches) -> None:
        """See :meth:`tasks.engine.model.batching.caches.Caches.join`."""
        rows, longest = len(other._lengths), max(other._lengths)
        for mine, theirs in zip(self._layers, other._layers, strict=True):
            mine.put(len(self._lengths), [array[:rows, :, :longest] for array in theirs.arrays()])
        self._lengths = [*self._lengths, *other._lengths]

    def keep(self, indices: list[int]) -> None:
        """See :meth:`tasks.engine.model.batching.caches.Caches.keep`. The first rows stay where they are, without a copy."""
        self._lengths = [self._lengths[index] for index in indices]
        if indices == list(range(len(indices))):
            return
        tokens = room(max(self._lengths))
        chosen = mx.array(indices)
        for layer in self._layers:
            layer.keys, layer.values = (
                None if array is None else array[chosen, :, :tokens] for array in (layer.keys, layer.values)
            )

    def copy(self) -> Self:
        """See :meth:`tasks.engine.model.batching.caches.Caches.copy`."""
        # Arrays are shared: MLX writes in place only into one that nobody else has.
        layers = [SlotLayer(*map(mx.array, layer.arrays())) for layer in self._layers]
        return type(self)(layers, list(self._lengths), self._pause)

    def extract(self, index: int) -> list[Any]:
        """See :meth:`tasks.engine.model.batching.caches.Caches.extract`."""
        cache, tokens = [], self._lengths[index]
        for layer in self._layers:
            row = KVCache()
            if tokens and (arrays := layer.arrays()):
                row.keys, row.values = (mx.contiguous(array[index : index + 1, :, :tokens]) for array in arrays)
                row.offset = tokens
            cache.append(row)
        mx.eval([(row.keys, row.values) for row in cache if row.keys is not None])
        return cache

    def prefill(self, head: Head, tokens: list[list[int]], ends: list[int]) -> mx.array | None:
        """See :meth:`tasks.engine.model.batching.caches.Caches.prefill`. Padding is written behind a row, and overwritten."""
        count = max(map(len, tokens))
        numbers = np if head.chooses and getattr(head.model, "host_prompts", False) else mx
        padded = numbers.array([row + [0] * (count - len(row)) for row in tokens])
        self._prepare(padded.shape, numbers, _threads(head.model))
        with _ignoring_overflow():
            logits = head.compute(padded, self._layers, last_places(tokens, ends))
        self._lengths = [length + len(row) for length, row in zip(self._lengths, tokens, strict=True)]
        mx.eval(self._arrays(), [] if logits is None else logits)
        return logits

    def step(self, model: Module, inputs: mx.array) -> mx.array:
        """See :meth:`tasks.engine.model.batching.caches.Caches.step`."""
        numbers = _numbers(model, len(self._lengths))
        given = inputs if numbers is mx else np.asarray(inputs)
        logits = self._compute(model, given[:, None], numbers)[:, -1, :]
        self._lengths = [length + 1 for length in self._lengths]
        return _of_mlx(logits)

    def step_drafted(self, model: Module, tokens: list[list[int]]) -> mx.array:
        """The logits after each of these tokens, ``[tokens in all, vocabulary]``, in the order of :func:`places`.

        Only the first token of each row counts, until :meth:`accept` says more.
        """
        rows, count = len(tokens), max(map(len, tokens))
        numbers = _numbers(model, sum(map(len, tokens)))
        if all(len(row) == count for row in tokens):
            logits = self._compute(model, numbers.array(tokens), numbers).swapaxes(0, 1).reshape(rows * count, -1)
        else:
            logits = self._compute_apart(model, tokens, numbers)
        self._lengths = [length + 1 for length in self._lengths]
        return _of_mlx(logits)

    def accept(self, index: int, tokens: int) -> None:
        """So many more tokens of the last step count for a row."""
        self._lengths[index] += tokens

    def _compute(self, model: Module, tokens: Any, numbers: Any) -> Any:
        self._prepare(tokens.shape, numbers, _threads(model))
        return self._call(model, tokens)

    def _prepare(self, shape: tuple[int, ...], numbers: Any, threads: HostThreads | None = None) -> None:
        """Tell the layers of a call with tokens of this shape."""
        rows, count = shape
        longest = max(self._lengths)
        call = Call(
            numbers=numbers,
            inputs=rows,
            offsets=numbers.array(self._lengths, numbers.int32),
            count=count,
            longest=longest + count,
            masked=min(self._lengths) < longest,
            pause=self._pause,
            threads=threads,
        )
        self._tell(call)

    def _compute_apart(self, model: Module, tokens: list[list[int]], numbers: Any) -> Any:
        """As if each token were a row of its own: so a row's second token costs no padding of the others.

        numpy's attention computes several inputs of one slot. MLX's has a slot for each input: it looks at a copy of its
        row's slot, behind the last slot, which gets the row's tokens before it, too.
        """
        order = places(list(map(len, tokens)))
        offsets = [self._lengths[row] + depth for row, depth in order]
        if numbers is np:
            further = _further(order)
            writes = [(number, row, offsets[number]) for number, (row, _) in enumerate(order)]
        else:
            further = {}
            self._copy_behind([row for row, depth in order if depth])
            writes = _writes_of_copies(order, offsets)
        sources, slots, targets = (numbers.array(list(column)) for column in zip(*writes, strict=True))
        call = Call(
            numbers=numbers,
            inputs=len(order),
            offsets=numbers.array(offsets, numbers.int32),
            count=1,
            longest=max(offsets) + 1,
            masked=True,
            sources=sources,
            slots=slots,
            targets=targets,
            pause=self._pause,
            further=further,
            threads=_threads(model),
        )
        self._tell(call)
        return self._call(model, numbers.array([[tokens[row][depth]] for row, depth in order]))[:, -1, :]

    def _copy_behind(self, rows: list[int]) -> None:
        """Copy these rows' slots behind the last one. What is copied is evaluated first: MLX writes in place into what nobody
        reads any more.
        """
        first, longest, chosen = len(self._lengths), max(self._lengths), mx.array(rows)
        copies = [[array[chosen, :, :longest] for array in layer.arrays()] for layer in self._layers]
        mx.eval(copies)
        for layer, arrays in zip(self._layers, copies, strict=True):
            layer.put(first, arrays)

    def _tell(self, call: Call) -> None:
        for layer in self._layers:
            layer.call = call

    def _call(self, model: Module, tokens: Any) -> Any:
        with _ignoring_overflow():
            return model(tokens, cache=self._layers)

    def _arrays(self) -> list[mx.array]:
        return [array for layer in self._layers for array in layer.arrays()]


def _further(order: list[tuple[int, int]]) -> dict[int, list[int]]:
    """The inputs behind the first one of each row, by row."""
    further: dict[int, list[int]] = {}
    for number, (row, depth) in enumerate(order):
        if depth:
            further.setdefault(row, []).append(number)
    return further


def _writes_of_copies(order: list[tuple[int, int]], offsets: list[int]) -> list[tuple[int, int, int]]:
    """Source, slot and target of each token where each input has a slot: a row's own gets all its tokens, a copy those before."""
    return [
        (source, slot, offsets[source])
        for slot, (row, depth) in enumerate(order)
        for source, (of, number) in enumerate(order)
        if of == row and (number <= depth or not depth)
    ]


def _numbers(model: Module, tokens: int) -> Any:
    """Return the library that computes so many tokens quicker, numpy or MLX."""
    return np if tokens <= getattr(model, "host_tokens", 0) else mx


def _ignoring_overflow() -> np.errstate:
    """An exponential of a large number is divided by."""
    return np.errstate(over="ignore")


def _threads(model: Module) -> HostThreads | None:
    return getattr(model, "host_threads", None)


def _of_mlx(logits: Any) -> mx.array:
    return logits if isinstance(logits, mx.array) else mx.array(logits)


def _merged(caches: list[Any], lengths: list[int]) -> SlotLayer:
    layer = SlotLayer()
    filled = next((cache for cache in caches if cache.keys is not None), None)
    if filled is None:
        return layer
    layer.keys = grown(None, len(caches), max(lengths), filled.keys)
    layer.values = grown(None, len(caches), max(lengths), filled.values)
    for row, (cache, length) in enumerate(zip(caches, lengths, strict=True)):
        if length:
            layer.put(row, [cache.keys[:, :, :length], cache.values[:, :, :length]])
    return layer
