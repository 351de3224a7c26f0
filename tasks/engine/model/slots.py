"""Rows in slots: keys and values that begin at position 0 and are as long as their row, however long others are.

mlx-lm's batch caches align rows on the right, so all get the same number of tokens in a step. Here a step may bring one row a
token and another one several, of which some count in the end: a row's length says which. For models all of whose caches are
mlx-lm's plain ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import mlx.core as mx
from mlx_lm.models.cache import KVCache

from tasks.engine.sampling.chain import places

if TYPE_CHECKING:
    from mlx.nn.layers.base import Module

#: Slots grow by so many tokens and so many rows at a time: growing copies everything.
GROW_TOKENS = 256
GROW_ROWS = 4


def fit(cache: list[Any]) -> bool:
    """Whether rows with such caches can be kept in slots."""
    return all(type(layer) is KVCache for layer in cache)


@dataclass(slots=True, frozen=True)
class _Call:
    """One call of the model for so many inputs: input i has ``count`` tokens from position ``offsets[i]`` on.

    Its token ``sources[n]`` goes into ``slots[n]`` at ``targets[n]``; without sources input i goes into slot i.
    ``masked`` says that some inputs see less than others.
    """

    inputs: int
    offsets: mx.array
    count: int
    longest: int
    masked: bool
    sources: mx.array | None = None
    slots: mx.array | None = None
    targets: mx.array | None = None

    def places(self) -> mx.array:
        """Where each token goes, ``[inputs, count]``."""
        return self.offsets[:, None] + mx.arange(self.count)[None]


class SlotLayer:
    """One layer's slots, as a model sees them: a cache of mlx-lm's."""

    def __init__(self, keys: mx.array | None = None, values: mx.array | None = None) -> None:
        self.keys, self.values = keys, values
        self.call: _Call | None = None

    def arrays(self) -> list[mx.array]:
        """Keys and values, ``[slots, heads, tokens, width]``; nothing before the first call."""
        return [] if self.keys is None or self.values is None else [self.keys, self.values]

    def put(self, first: int, arrays: list[mx.array]) -> None:
        """Write rows of keys and values into the slots from ``first`` on, from position 0 on."""
        if arrays:
            self.keys, self.values = (
                _put(array, first, new) for array, new in zip((self.keys, self.values), arrays, strict=True)
            )

    @property
    def offset(self) -> mx.array:
        """The position of each input's first token, ``[inputs]``."""
        assert self.call is not None
        return self.call.offsets

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Take in the call's keys and values, ``[inputs, heads, count, width]``, and return all that its inputs see."""
        call = self.call
        assert call is not None
        self.keys = self._taken(_grown(self.keys, call.inputs, call.longest, keys), keys, call)
        self.values = self._taken(_grown(self.values, call.inputs, call.longest, values), values, call)
        return self.keys[: call.inputs, :, : call.longest], self.values[: call.inputs, :, : call.longest]

    def make_mask(self, count: int, return_array: bool = False, window_size: int | None = None) -> mx.array | None:
        """What each token sees, ``[inputs, 1, count, longest]``; ``None`` where that is all."""
        call = self.call
        assert call is not None
        if count == 1 and not call.masked and window_size is None and not return_array:
            return None
        seen, places = mx.arange(call.longest)[None, None], call.places()[:, :, None]
        mask = seen <= places
        if window_size is not None:
            mask = mask & (places < seen + window_size)
        return mask[:, None]

    @staticmethod
    def _taken(array: mx.array, new: mx.array, call: _Call) -> mx.array:
        if call.sources is not None:
            array[call.slots, :, call.targets] = new[call.sources, :, 0]
        elif call.count == 1:
            array[mx.arange(call.inputs), :, call.offsets] = new[:, :, 0]
        else:
            array[mx.arange(call.inputs)[:, None], :, call.places()] = new.transpose(0, 2, 1, 3)
        return array


def _grown(array: mx.array | None, rows: int, tokens: int, like: mx.array) -> mx.array:
    """An array with room for so many rows and tokens, and what was there."""
    old_rows, old_tokens = (0, 0) if array is None else (array.shape[0], array.shape[2])
    if array is not None and old_rows >= rows and old_tokens >= tokens:
        return array
    if rows > max(old_rows, 1):
        rows = -(-rows // GROW_ROWS) * GROW_ROWS
    if tokens > old_tokens:
        tokens = -(-tokens // GROW_TOKENS) * GROW_TOKENS
    shape = (max(rows, old_rows), like.shape[1], max(tokens, old_tokens), like.shape[3])
    grown = mx.zeros(shape, like.dtype)
    if array is not None:
        grown[:old_rows, :, :old_tokens] = array
    return grown


def _put(array: mx.array | None, first: int, new: mx.array) -> mx.array:
    rows, tokens = first + new.shape[0], new.shape[2]
    array = _grown(array, rows, tokens, new)
    array[first:rows, :, :tokens] = new
    return array


class SlotCaches:
    """The slots of some rows, in order; ``lengths`` says how many tokens each row has."""

    def __init__(self, layers: list[SlotLayer], lengths: list[int]) -> None:
        self._layers = layers
        self._lengths = lengths

    @classmethod
    def merge(cls, caches: list[list[Any]]) -> Self:
        """See :meth:`tasks.engine.model.caches.Caches.merge`."""
        # A layer without attention, as nemotron-nas has them, writes nothing into its cache.
        lengths = [max(int(layer.offset) for layer in layers) for layers in caches]
        return cls([_merged(list(layers), lengths) for layers in zip(*caches, strict=True)], lengths)

    @property
    def nbytes(self) -> int:
        """What they take."""
        return sum(array.nbytes for array in self._arrays())

    def join(self, other: SlotCaches) -> None:
        """See :meth:`tasks.engine.model.caches.Caches.join`."""
        rows, longest = len(other._lengths), max(other._lengths)
        for mine, theirs in zip(self._layers, other._layers, strict=True):
            mine.put(len(self._lengths), [array[:rows, :, :longest] for array in theirs.arrays()])
        self._lengths = [*self._lengths, *other._lengths]

    def keep(self, indices: list[int]) -> None:
        """See :meth:`tasks.engine.model.caches.Caches.keep`. The first rows stay where they are, without a copy."""
        self._lengths = [self._lengths[index] for index in indices]
        if indices == list(range(len(indices))):
            return
        tokens = -(-max(self._lengths) // GROW_TOKENS) * GROW_TOKENS
        chosen = mx.array(indices)
        for layer in self._layers:
            layer.keys, layer.values = (
                None if array is None else array[chosen, :, :tokens] for array in (layer.keys, layer.values)
            )

    def copy(self) -> Self:
        """See :meth:`tasks.engine.model.caches.Caches.copy`."""
        # Arrays are shared: MLX writes in place only into one that nobody else has.
        layers = [SlotLayer(*map(mx.array, layer.arrays())) for layer in self._layers]
        return type(self)(layers, list(self._lengths))

    def extract(self, index: int) -> list[Any]:
        """See :meth:`tasks.engine.model.caches.Caches.extract`."""
        cache, tokens = [], self._lengths[index]
        for layer in self._layers:
            row = KVCache()
            if tokens and (arrays := layer.arrays()):
                row.keys, row.values = (mx.contiguous(array[index : index + 1, :, :tokens]) for array in arrays)
                row.offset = tokens
            cache.append(row)
        mx.eval([(row.keys, row.values) for row in cache if row.keys is not None])
        return cache

    def prefill(self, model: Module, tokens: list[list[int]]) -> None:
        """See :meth:`tasks.engine.model.caches.Caches.prefill`. What pads a row is written behind it, and overwritten."""
        count = max(map(len, tokens))
        self._compute(model, mx.array([row + [0] * (count - len(row)) for row in tokens]))
        self._lengths = [length + len(row) for length, row in zip(self._lengths, tokens, strict=True)]
        mx.eval(self._arrays())

    def step(self, model: Module, inputs: mx.array) -> mx.array:
        """See :meth:`tasks.engine.model.caches.Caches.step`."""
        logits = self._compute(model, inputs[:, None])[:, -1, :]
        self._lengths = [length + 1 for length in self._lengths]
        return logits

    def step_drafted(self, model: Module, tokens: list[list[int]]) -> mx.array:
        """The logits after each of these tokens, ``[tokens in all, vocabulary]``, in the order of :func:`places`.

        Only the first token of each row counts, until :meth:`accept` says more.
        """
        rows, count = len(tokens), max(map(len, tokens))
        if all(len(row) == count for row in tokens):
            logits = self._compute(model, mx.array(tokens)).swapaxes(0, 1).reshape(rows * count, -1)
        else:
            logits = self._compute_apart(model, tokens)
        self._lengths = [length + 1 for length in self._lengths]
        return logits

    def accept(self, index: int, tokens: int) -> None:
        """So many more tokens of the last step count for a row."""
        self._lengths[index] += tokens

    def _compute(self, model: Module, tokens: mx.array) -> mx.array:
        rows, count = tokens.shape
        longest = max(self._lengths)
        call = _Call(
            inputs=rows,
            offsets=mx.array(self._lengths, mx.int32),
            count=count,
            longest=longest + count,
            masked=min(self._lengths) < longest,
        )
        return self._call(model, tokens, call)

    def _compute_apart(self, model: Module, tokens: list[list[int]]) -> mx.array:
        """As if each token were a row of its own: so a row's second token costs no padding of the others.

        Such an input looks at a copy of its row's slot, behind the last slot, which gets the row's tokens before it, too.
        """
        order = places(list(map(len, tokens)))
        offsets = [self._lengths[row] + depth for row, depth in order]
        self._copy_behind([row for row, depth in order if depth])
        writes = [
            (source, slot, offsets[source])
            for slot, (row, depth) in enumerate(order)
            for source, (of, number) in enumerate(order)
            if of == row and (number <= depth or not depth)
        ]
        sources, slots, targets = (mx.array(list(column)) for column in zip(*writes, strict=True))
        call = _Call(
            inputs=len(order),
            offsets=mx.array(offsets, mx.int32),
            count=1,
            longest=max(offsets) + 1,
            masked=True,
            sources=sources,
            slots=slots,
            targets=targets,
        )
        return self._call(model, mx.array([[tokens[row][depth]] for row, depth in order]), call)[:, -1, :]

    def _copy_behind(self, rows: list[int]) -> None:
        """Copy these rows' slots behind the last one. What is copied is evaluated first: MLX writes in place into what nobody
        reads any more.
        """
        first, longest, chosen = len(self._lengths), max(self._lengths), mx.array(rows)
        copies = [[array[chosen, :, :longest] for array in layer.arrays()] for layer in self._layers]
        mx.eval(copies)
        for layer, arrays in zip(self._layers, copies, strict=True):
            layer.put(first, arrays)

    def _call(self, model: Module, tokens: mx.array, call: _Call) -> mx.array:
        for layer in self._layers:
            layer.call = call
        logits: mx.array = model(tokens, cache=self._layers)
        return logits

    def _arrays(self) -> list[mx.array]:
        return [array for layer in self._layers for array in layer.arrays()]


def _merged(caches: list[Any], lengths: list[int]) -> SlotLayer:
    layer = SlotLayer()
    filled = next((cache for cache in caches if cache.keys is not None), None)
    if filled is None:
        return layer
    layer.keys = _grown(None, len(caches), max(lengths), filled.keys)
    layer.values = _grown(None, len(caches), max(lengths), filled.values)
    for row, (cache, length) in enumerate(zip(caches, lengths, strict=True)):
        if length:
            layer.put(row, [cache.keys[:, :, :length], cache.values[:, :, :length]])
    return layer
