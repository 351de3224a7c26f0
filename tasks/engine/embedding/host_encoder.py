"""An encoder on numpy, for MLX's CPU build: texts lie behind each other, so that none is padded.

Only attention looks at texts apart, at those of equal lengths together. The products of queries, keys and values are one, and
weights are transposed once, which the BLAS multiplies with in nine tenths of the time. Threads compute parts of the texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

from tasks.engine.embedding.encoder import Encoder
from tasks.engine.embedding.host_blas import HostBlas
from tasks.engine.model.layout import elementwise

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Array = NDArray[np.float32]

#: Tokens of a step, for each thread: more save little, and requests wait longer for the step's end.
THREAD_TOKENS = 512
#: Shares of attention that are computed together: more leave the core's second cache.
MOST_SHARES = 1 << 16


@dataclass(slots=True, frozen=True)
class _Linear:
    weight: Array
    bias: Array

    def __call__(self, x: Array) -> Array:
        product: Array = x @ self.weight
        product += self.bias
        return product


@dataclass(slots=True, frozen=True)
class _Norm:
    weight: Array
    bias: Array
    eps: float

    def __call__(self, x: Array) -> Array:
        elementwise.normalise(x, self.weight, self.bias, self.eps)
        return x


@dataclass(slots=True, frozen=True)
class _Layer:
    """``project`` makes queries, keys and values."""

    project: _Linear
    attended: _Linear
    attended_norm: _Norm
    widen: _Linear
    narrow: _Linear
    norm: _Norm


class HostEncoder(Encoder):
    """See :class:`Encoder`. Its weights lie in MLX's memory, whose bound they count to."""

    def __init__(self, config: dict[str, Any], files: Iterable[Path]) -> None:
        super().__init__(config, files)
        self._activate = elementwise.ACTIVATIONS[self.activation]
        self._embedded = self._laid_norm("embeddings.LayerNorm")
        self._laid_out = [self._lay_out(f"encoder.layer.{number}") for number in range(self._layers)]
        self._blas = HostBlas()
        self.threads = self._blas.threads
        self.most_tokens = THREAD_TOKENS * self.threads

    def start(self) -> None:
        """Start the threads. Before that, the caller's thread computes alone."""
        self._blas.start()

    def __call__(self, ids: mx.array, lengths: list[int], types: mx.array | None = None) -> mx.array:
        """See :meth:`Encoder.__call__`."""
        ends = np.array(lengths)
        counts = np.arange(ids.shape[1])[None] < ends[:, None]
        given, kinds = np.asarray(ids), None if types is None else np.asarray(types)
        padded = np.zeros((*ids.shape, len(self._embedded.weight)), np.float32)

        def compute(start: int, end: int) -> None:
            part = slice(start, end)
            here = counts[part]
            hidden = self._embed(given[part][here], here, None if kinds is None else kinds[part][here])
            padded[part][here] = self._encode(hidden, lengths[part])

        self._blas.share(compute, len(lengths))
        return mx.array(padded)

    def _encode(self, hidden: Array, lengths: Sequence[int]) -> Array:
        for layer in self._laid_out:
            attended = layer.attended(attend(layer.project(hidden), lengths, self._heads))
            attended += hidden
            hidden = layer.attended_norm(attended)
            wide = layer.widen(hidden)
            self._activate(wide)
            narrow = layer.narrow(wide)
            narrow += hidden
            hidden = layer.norm(narrow)
        return hidden

    def _embed(self, ids: NDArray[np.int32], counts: NDArray[np.bool_], types: NDArray[np.int32] | None) -> Array:
        word, position, kind = (np.asarray(self._table(name)) for name in ("word", "position", "token_type"))
        hidden: Array = word[ids]
        hidden += position[self._first_position + counts.nonzero()[1]]
        hidden += kind[0] if types is None or len(kind) == 1 else kind[types]
        return self._embedded(hidden)

    def _lay_out(self, name: str) -> _Layer:
        scale = (self._weights[f"{name}.attention.self.query.bias"].size // self._heads) ** -0.5
        joint = {
            part: mx.concatenate(
                [
                    self._weights.pop(f"{name}.attention.self.{kind}.{part}") * (scale if kind == "query" else 1)
                    for kind in ("query", "key", "value")
                ]
            )
            for part in ("weight", "bias")
        }
        self._weights.update({f"{name}.attention.self.{part}": array for part, array in joint.items()})
        return _Layer(
            self._laid_linear(f"{name}.attention.self"),
            self._laid_linear(f"{name}.attention.output.dense"),
            self._laid_norm(f"{name}.attention.output.LayerNorm"),
            self._laid_linear(f"{name}.intermediate.dense"),
            self._laid_linear(f"{name}.output.dense"),
            self._laid_norm(f"{name}.output.LayerNorm"),
        )

    def _laid_linear(self, name: str) -> _Linear:
        self._weights[f"{name}.weight"] = mx.contiguous(self._weights[f"{name}.weight"].T)
        return _Linear(self._view(f"{name}.weight"), self._view(f"{name}.bias"))

    def _laid_norm(self, name: str) -> _Norm:
        return _Norm(self._view(f"{name}.weight"), self._view(f"{name}.bias"), self._eps)

    def _view(self, name: str) -> Array:
        """The same memory, as numpy's."""
        mx.eval(self._weights[name])
        return np.array(self._weights[name], copy=False)


def attend(projected: Array, lengths: Sequence[int], heads: int, most_shares: int = MOST_SHARES) -> Array:
    """Attention within each text.

    Args:
        projected: queries, keys and values, ``[tokens in all, 3 * width]``.
        lengths: tokens of each text.
        heads: among which the width is divided.
        most_shares: bounds what is computed together.
    """
    attended = np.empty((len(projected), projected.shape[-1] // 3), np.float32)
    start = 0
    for tokens, alike in groupby(lengths):
        rows = len(list(alike))
        end = start + rows * tokens
        parts = projected[start:end].reshape(rows, tokens, 3, heads, -1).transpose(2, 0, 3, 1, 4)
        into = attended[start:end].reshape(rows, tokens, heads, -1).transpose(0, 2, 1, 3)
        for piece in _pieces(rows, heads, most_shares // tokens**2):
            elementwise.attend(parts[0][piece], parts[1][piece], parts[2][piece], into[piece])
        start = end
    return attended


def _pieces(rows: int, heads: int, most: int) -> Iterator[tuple[slice | int, ...]]:
    """Rows of heads, ``most`` of these together: several rows, or some heads of one."""
    if most >= heads:
        together = most // heads
        yield from ((slice(row, row + together),) for row in range(0, rows, together))
    else:
        together = max(1, most)
        yield from ((row, slice(head, head + together)) for row in range(rows) for head in range(0, heads, together))
