"""Dense weights in panels, as a CPU's BLAS multiplies small batches quickly.

A weight ``[out, in]`` becomes ``[panels, in, width]``, each panel contiguous. A product then is one small BLAS call for each
panel. OpenBLAS computes such calls without copying the weight first, which is most of what a product with few rows costs
otherwise; and panels can be shared out among several streams of MLX, which are threads. Sums are taken in another order than
with the weight as it comes, so logits may differ in their last bits, as they do between libraries and numbers of rows.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
from mlx import nn

from tasks.engine.model.layout.host_product import MOST_MULTIPLICATIONS, host_product
from tasks.engine.model.layout.record import ROWS
from tasks.engine.model.layout.threads import HostThreads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: The last number of rows that each of ``ROWS`` stands for; there is none after the last.
_LAST_ROWS = (1, 8, 64)
#: A panel's width that stands for all outputs of a weight: the weight is transposed.
WHOLE = -1
#: Weights of fewer bytes are not shared out: to wait for another thread takes longer.
SHARED_BYTES = 1 << 20
#: The same for numpy's products. With more rows than this a product takes longer than it takes to read the weight.
HOST_SHARED_BYTES, READING_ROWS = 3 << 20, 8


@dataclass(slots=True, frozen=True)
class Layout:
    """The way in which weights of one kind lie and are multiplied.

    Args:
        width: outputs of a panel; 0 leaves weights as they come, and ``WHOLE`` makes one panel of a weight.
        streams: among how many streams the panels are shared out, for each of :data:`tasks.engine.model.layout.record.ROWS`.
    """

    width: int = 0
    streams: tuple[int, ...] = (1,) * len(ROWS)

    def suits(self, weight: mx.array) -> bool:
        """Whether a weight can lie like this without padding."""
        if not self.width or weight.ndim != 2 or weight.dtype != mx.float32:
            return False
        return self.width == WHOLE or weight.shape[0] % self.width == 0


class Streams:
    """Streams of MLX's CPU backend, the default one first, which have a thread each; and as many threads for numpy's products."""

    def __init__(self, count: int) -> None:
        self.host_threads = HostThreads(count)
        cpu = mx.Device(mx.DeviceType.cpu, 0)
        self._streams = [mx.default_stream(cpu), *(mx.new_stream(cpu) for _ in range(count - 1))]

    def take(self, count: int) -> list[mx.Stream]:
        """The first ``count`` of them, or all."""
        return self._streams[:count]


class Panels:
    """One weight in panels, which knows how to multiply.

    Args:
        array: ``[panels, in, width]``, contiguous.
        layout: of this weight.
        streams: streams to compute on.
    """

    def __init__(self, array: mx.array, layout: Layout, streams: Streams) -> None:
        self.array = array
        self.on_host = np.array(array, copy=False)  # the same memory, as numpy's
        self._streams = streams
        most = len(array) if array.nbytes >= SHARED_BYTES else 1
        self._counts = [min(count, most) for count in layout.streams]
        self._is_whole = layout.width == WHOLE
        self._parts = {count: _shared_out(array, count) for count in set(self._counts)}

    @classmethod
    def of(cls, weight: mx.array, layout: Layout, streams: Streams) -> Panels:
        """Lay out ``[out, in]``; evaluated, so that the original can go."""
        outputs, inputs = weight.shape
        width = outputs if layout.width == WHOLE else layout.width
        array = mx.contiguous(weight.reshape(outputs // width, width, inputs).transpose(0, 2, 1))
        mx.eval(array)
        return cls(array, layout, streams)

    def weight(self) -> mx.array:
        """The weight as it came, ``[out, in]``. A copy: for code that reads a layer's weight itself."""
        return self.array.transpose(0, 2, 1).reshape(-1, self.array.shape[1])

    def rows(self, ids: Any) -> Any:
        """The weight's rows of these numbers, of numpy or of MLX."""
        width = self.array.shape[2]
        if isinstance(ids, np.ndarray):
            return self.on_host[ids // width, :, ids % width]
        return self.array[ids // width, :, ids % width]

    def streams(self, rows: int) -> list[mx.Stream]:
        """Return the streams that compute the parts of a product with so many rows."""
        return self._streams.take(self._counts[bisect_left(_LAST_ROWS, rows)])

    def parts(self, x: mx.array) -> list[mx.array]:
        """``x``, ``[rows, in]``, times the weight: a part for each of :meth:`streams`, ``[panels, rows, width]``."""
        streams = self.streams(len(x))
        _, inputs, width = self.array.shape
        most = len(x) if self._is_whole else max(1, MOST_MULTIPLICATIONS // (inputs * width))
        parts = self._parts[len(streams)]
        return [_multiply(x, part, most, stream) for part, stream in zip(parts, streams, strict=True)]

    def __call__(self, x: Any) -> Any:
        """``x``, ``[..., in]``, times the weight, ``[..., out]``; of numpy or of MLX."""
        if isinstance(x, np.ndarray):
            return host_product(x, [self])
        return joined(self.parts(x.reshape(-1, x.shape[-1])), x.shape[:-1])

    def share(self, compute: Callable[[int, int], None], rows: int, weights: int) -> None:
        """Have ``compute(start, end)`` called for all panels, by several threads where that many weights take long."""
        panels = len(self.array)
        if weights * self.array.nbytes * max(1, rows // READING_ROWS) < HOST_SHARED_BYTES:
            compute(0, panels)
        else:
            self._streams.host_threads.share(compute, panels)

    def share_rows(self, compute: Callable[[int, int], None], rows: int) -> None:
        """Have ``compute(start, end)`` called for all rows, by several threads."""
        self._streams.host_threads.share(compute, rows)


def joined(parts: Sequence[mx.array], shape: Sequence[int]) -> mx.array:
    """Parts of a product as ``[*shape, out]``."""
    product = parts[0] if len(parts) == 1 else mx.concatenate(list(parts))
    if product.shape[1] > 1:
        product = product.transpose(1, 0, 2)
    return product.reshape(*shape, -1)


def _shared_out(array: mx.array, count: int) -> list[mx.array]:
    """Views of nearly equal numbers of panels."""
    return [array[len(array) * n // count : len(array) * (n + 1) // count] for n in range(count)]


def _multiply(x: mx.array, panels: mx.array, most: int, stream: mx.Stream) -> mx.array:
    """``[panels, rows, width]``, with ``most`` rows in one BLAS call."""
    rows, inputs = x.shape
    if rows <= most:
        return mx.matmul(mx.expand_dims(x, 0, stream=stream), panels, stream=stream)
    count = -(-rows // most)
    size = -(-rows // count)
    if count * size > rows:
        x = mx.pad(x, [(0, count * size - rows), (0, 0)], stream=stream)
    groups = mx.reshape(x, (1, count, size, inputs), stream=stream)
    products = mx.matmul(groups, mx.expand_dims(panels, 1, stream=stream), stream=stream)
    return mx.reshape(products, (len(panels), count * size, -1), stream=stream)[:, :rows]


class PanelLinear(nn.Linear):
    """A layer whose weight lies in panels."""

    _panels: Panels

    @property
    def weight(self) -> mx.array:
        """See :meth:`Panels.weight`."""
        return self._panels.weight()

    @property
    def weight_panels(self) -> Panels:
        """The weight's panels."""
        return self._panels

    def parts(self, x: mx.array) -> list[mx.array]:
        """See :meth:`Panels.parts`."""
        return self._panels.parts(x)

    def streams(self, rows: int) -> list[mx.Stream]:
        """See :meth:`Panels.streams`."""
        return self._panels.streams(rows)

    def __call__(self, x: Any) -> Any:
        """As :class:`mlx.nn.Linear`."""
        product = self._panels(x)
        if "bias" not in self:
            return product
        return product + (np.asarray(self.bias) if isinstance(x, np.ndarray) else self.bias)


class PanelEmbedding(nn.Embedding):
    """An embedding whose weight lies in panels, which serve as the model's head too."""

    _panels: Panels

    @property
    def weight(self) -> mx.array:
        """See :meth:`Panels.weight`."""
        return self._panels.weight()

    def __call__(self, ids: Any) -> Any:
        """As :class:`mlx.nn.Embedding`."""
        return self._panels.rows(ids)

    def as_linear(self, x: Any) -> Any:
        """As :class:`mlx.nn.Embedding`."""
        return self._panels(x)


def put_into_panels(module: nn.Linear | nn.Embedding, layout: Layout, streams: Streams) -> None:
    """Give a layer another layout, in place; it never has its weight twice."""
    panels = Panels.of(module.pop("weight"), layout, streams)
    module.__class__ = PanelEmbedding if isinstance(module, nn.Embedding) else PanelLinear
    module.panels = panels.array  # counted and evaluated as a parameter
    module._panels = panels
