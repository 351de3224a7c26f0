"""The caches of a group of rows.

This module and :mod:`tasks.engine.model.batching.prefixes` know the internals of mlx-lm's (0.32.2).
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Protocol, Self

import mlx.core as mx
from mlx_lm.models.cache import KVCache, RotatingKVCache

if TYPE_CHECKING:
    from mlx.nn.layers.base import Module

    from tasks.engine.model.batching.head import Head


class Caches(Protocol):
    """The caches of some rows, in order."""

    @classmethod
    def merge(cls, caches: list[list[Any]]) -> Self:
        """Those of rows that each have a cache of their own, as mlx-lm makes them: one object for each layer."""
        ...

    @property
    def nbytes(self) -> int:
        """The bytes of all caches."""
        ...

    def join(self, other: Any) -> None:
        """Append another group's."""
        ...

    def keep(self, indices: list[int]) -> None:
        """Drop all but these rows'; at least one."""
        ...

    def copy(self) -> Self:
        """Others that say the same."""
        ...

    def extract(self, index: int) -> list[Any]:
        """A copy of one row's, evaluated: a lazy one would keep the whole group's arrays alive."""
        ...

    def prefill(self, head: Head, tokens: list[list[int]], ends: list[int]) -> mx.array | None:
        """Compute so many tokens of each row; returns logits, ``[ends, vocabulary]``, after the last token of these rows."""
        ...

    def step(self, model: Module, inputs: mx.array) -> mx.array:
        """The logits, ``[rows, vocabulary]``, after one more token of each row, ``[rows]``. Waits for nothing."""
        ...


class JointCaches:
    """One object for each layer, whose arrays have a row for each sequence: one call of the model computes them all.

    Rows whose tokens are fewer than others' are padded on the right for the call; mlx-lm's caches then turn that into
    padding on the left. Some models read masks and offsets wrongly there (:mod:`tasks.engine.model.selftest`).
    """

    def __init__(self, layers: list[Any]) -> None:
        self._layers = layers

    @classmethod
    def merge(cls, caches: list[list[Any]]) -> Self:
        """See :meth:`Caches.merge`."""
        return cls([layers[0].merge(list(layers)) for layers in zip(*caches, strict=True)])

    @property
    def nbytes(self) -> int:
        """See :attr:`Caches.nbytes`."""
        return sum(layer.nbytes for layer in self._layers)

    def join(self, other: JointCaches) -> None:
        """See :meth:`Caches.join`."""
        for mine, theirs in zip(self._layers, other._layers, strict=True):
            mine.extend(theirs)

    def keep(self, indices: list[int]) -> None:
        """See :meth:`Caches.keep`."""
        for layer in self._layers:
            layer.filter(indices)

    def copy(self) -> Self:
        """See :meth:`Caches.copy`."""
        return type(self)(copy.deepcopy(self._layers))

    def extract(self, index: int) -> list[Any]:
        """See :meth:`Caches.extract`."""
        cache = [_unused(layer) if _is_unused(layer) else layer.extract(index) for layer in self._layers]
        _evaluate(cache)
        return cache

    def prefill(self, head: Head, tokens: list[list[int]], ends: list[int]) -> mx.array | None:
        """See :meth:`Caches.prefill`."""
        counts = [len(row) for row in tokens]
        padding = [max(counts) - count for count in counts]
        if any(padding):
            for layer in self._layers:
                layer.prepare(lengths=counts, right_padding=padding)
        padded = mx.array([row + [0] * pad for row, pad in zip(tokens, padding, strict=True)])
        logits = head.compute(padded, self._layers, last_places(tokens, ends))
        if any(padding):
            for layer in self._layers:
                if not _is_unused(layer):
                    layer.finalize()
        _evaluate(self._layers, logits)
        return logits

    def step(self, model: Module, inputs: mx.array) -> mx.array:
        """See :meth:`Caches.step`."""
        logits: mx.array = model(inputs[:, None], cache=self._layers)[:, -1, :]
        return logits


class SeparateCaches:
    """A cache for each row, and a call of the model for each, as mlx-lm computes a row alone; for caches of any kind."""

    def __init__(self, rows: list[list[Any]]) -> None:
        self._rows = rows

    @classmethod
    def merge(cls, caches: list[list[Any]]) -> Self:
        """See :meth:`Caches.merge`."""
        return cls(list(caches))

    @property
    def nbytes(self) -> int:
        """See :attr:`Caches.nbytes`."""
        return sum(layer.nbytes for row in self._rows for layer in row)

    def join(self, other: SeparateCaches) -> None:
        """See :meth:`Caches.join`."""
        self._rows = [*self._rows, *other._rows]

    def keep(self, indices: list[int]) -> None:
        """See :meth:`Caches.keep`."""
        self._rows = [self._rows[index] for index in indices]

    def copy(self) -> Self:
        """See :meth:`Caches.copy`. Shares the rows' caches: each row is kept in one of the two alone."""
        return type(self)(list(self._rows))

    def extract(self, index: int) -> list[Any]:
        """See :meth:`Caches.extract`."""
        cache = copy.deepcopy(self._rows[index])
        _evaluate(cache)
        return cache

    def prefill(self, head: Head, tokens: list[list[int]], ends: list[int]) -> mx.array | None:
        """See :meth:`Caches.prefill`."""
        last = []
        for index, (row, cache) in enumerate(zip(tokens, self._rows, strict=True)):
            logits = head.compute(mx.array([row]), cache, [(0, len(row) - 1)] if index in ends else [])
            _evaluate(cache, logits)
            if logits is not None:
                last.append(logits)
        return mx.concatenate(last) if last else None

    def step(self, model: Module, inputs: mx.array) -> mx.array:
        """See :meth:`Caches.step`."""
        return mx.concatenate(
            [model(inputs[n : n + 1, None], cache=cache)[:, -1, :] for n, cache in enumerate(self._rows)]
        )


def _is_unused(layer: Any) -> bool:
    """Whether it is that of a layer without attention, which never fills it (nemotron-nas): mlx-lm's own calls then raise."""
    return getattr(layer, "keys", layer) is None


def _unused(layer: Any) -> Any:
    return RotatingKVCache(layer.max_size) if hasattr(layer, "max_size") else KVCache()


def last_places(tokens: list[list[int]], ends: list[int]) -> list[tuple[int, int]]:
    """Return the places of the last tokens of these rows, in a call whose rows are padded on the right."""
    return [(row, len(tokens[row]) - 1) for row in ends]


def _evaluate(layers: list[Any], logits: mx.array | None = None) -> None:
    mx.eval([layer.state for layer in layers], [] if logits is None else logits)
