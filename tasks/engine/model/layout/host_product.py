"""numpy's products with weights in panels."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from tasks.engine.model.layout.panels import Panels

#: Multiplications of one BLAS call. OpenBLAS copies the weight first where there are more.
MOST_MULTIPLICATIONS = 1_000_000
#: Where a call could take fewer inputs than this, as of a weight in one piece, the copy costs less than the calls.
LEAST_INPUTS = 16
#: With so many rows threads share out the rows, and each computes some of them at a time. OpenBLAS needs no copy of 20 rows with
#: 768 inputs times a panel of 64, and so reaches 1.1 to 1.2 times the speed of one call for all rows.
MANY_ROWS, SUMS_TOGETHER = 96, 20 * 64


def host_product(
    x: npt.NDArray[np.float32],
    weights: Sequence[Panels],
    combine: Callable[..., npt.NDArray[np.float32]] | None = None,
) -> npt.NDArray[np.float32]:
    """``x``, ``[..., in]``, times a weight, ``[..., out]``; or combined products of weights of one shape and layout."""
    rows = x.reshape(-1, x.shape[-1])
    if len(rows) >= MANY_ROWS:
        return _product_of_many(rows, weights, combine).reshape(*x.shape[:-1], -1)
    if len(rows) == 1:  # numpy has another call for that, which takes half as long again
        rows = np.concatenate([rows, rows])
    panels, _, width = weights[0].array.shape
    product = np.empty((panels, len(rows), width), np.float32)

    def compute(start: int, end: int) -> None:
        first, *others = (weight.on_host[start:end] for weight in weights)
        part = _multiply_on_host(rows, first, product[start:end])
        if combine is not None:
            part[:] = combine(part, *(_multiply_on_host(rows, other, np.empty_like(part)) for other in others))

    weights[0].share(compute, len(rows), len(weights))
    return product.swapaxes(0, 1)[: x.size // x.shape[-1]].reshape(*x.shape[:-1], -1)


def _product_of_many(
    rows: npt.NDArray[np.float32],
    weights: Sequence[Panels],
    combine: Callable[..., npt.NDArray[np.float32]] | None = None,
) -> npt.NDArray[np.float32]:
    """Return ``[rows, out]``, computed by threads that share the rows out, a few at a time."""
    panels, _, width = weights[0].array.shape
    product = np.empty((len(rows), panels * width), np.float32)
    by_panel = product.reshape(len(rows), panels, width).swapaxes(0, 1)
    together = max(1, SUMS_TOGETHER // width) if panels > 1 else len(rows)

    def compute(start: int, end: int) -> None:
        for first, last in pairwise(_bounds(start, end, together)):
            given, into = rows[first:last], by_panel[:, first:last]
            if combine is None:
                _multiply_on_host(given, weights[0].on_host, into)
                continue
            parts = [np.empty(into.shape, np.float32) for _ in weights]
            for weight, part in zip(weights, parts, strict=True):
                _multiply_on_host(given, weight.on_host, part)
            into[:] = combine(*parts)

    weights[0].share_rows(compute, len(rows))
    return product


def _bounds(start: int, end: int, most: int) -> list[int]:
    """Return the bounds of nearly equal parts, none of which has more than ``most``."""
    parts = -(-(end - start) // most)
    return [start + (end - start) * part // parts for part in range(parts + 1)]


def _multiply_on_host(
    x: npt.NDArray[np.float32], panels: npt.NDArray[np.float32], product: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Fill in ``[panels, rows, width]``."""
    _, inputs, width = panels.shape
    most = MOST_MULTIPLICATIONS // (len(x) * width)
    if most < LEAST_INPUTS:
        most = inputs
    most = -(-inputs // -(-inputs // most))  # of equal parts
    np.matmul(x[:, :most], panels[:, :most], out=product)
    for start in range(most, inputs, most):
        product += np.matmul(x[:, start : start + most], panels[:, start : start + most])
    return product
