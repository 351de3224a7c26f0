"""GELU and softmax for MLX's CPU build, which computes functions such as erf one element at a time.

numpy uses the processor's vectors for them. Measured on one core of an AMD EPYC (Zen 4), nanoseconds for each element: erf 26
in MLX, all of GELU 5 here; softmax 12 and 2. On a GPU the encoder uses MLX's own.
"""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np

#: So many elements at a time stay in a core's cache through all steps.
BLOCK = 1 << 15
#: Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26: erf with an error below 1.5e-7.
_P = np.float32(0.3275911)
_A = tuple(np.float32(a) for a in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592))
_ONE, _HALF, _ROOT_HALF = np.float32(1), np.float32(0.5), np.float32(math.sqrt(0.5))


def gelu(x: mx.array | np.ndarray) -> mx.array:
    """The exact GELU, ``x * Φ(x)``."""
    values = np.array(x, np.float32)  # a copy, which becomes the result
    flat = values.reshape(-1)
    scratch = np.empty((3, min(BLOCK, flat.size)), np.float32)
    for start in range(0, flat.size, BLOCK):
        part = flat[start : start + BLOCK]
        _gelu(part, *scratch[:, : part.size])
    return mx.array(values)


def _gelu(v: np.ndarray, z: np.ndarray, t: np.ndarray, p: np.ndarray) -> None:
    """GELU of ``v`` in place; the others are room for steps between."""
    np.abs(v, out=z)
    z *= _ROOT_HALF
    np.multiply(z, _P, out=t)
    t += _ONE
    np.reciprocal(t, out=t)
    np.multiply(t, _A[0], out=p)
    for a in _A[1:]:
        p += a
        p *= t
    z *= z
    np.negative(z, out=z)
    np.exp(z, out=z)
    p *= z
    np.subtract(_ONE, p, out=p)
    np.copysign(p, v, out=p)
    p += _ONE
    p *= _HALF
    v *= p


def attention(queries: mx.array, keys: mx.array, values: mx.array, mask: mx.array | None) -> mx.array:
    """Scaled dot-product attention; ``mask`` says which keys count."""
    scores = (queries * queries.shape[-1] ** -0.5) @ keys.swapaxes(-1, -2)
    if mask is not None:
        scores = mx.where(mask, scores, -mx.inf)
    shares = np.array(scores, np.float32)
    for text in shares:  # one at a time stays in the cache
        np.subtract(text, text.max(axis=-1, keepdims=True), out=text)
        np.exp(text, out=text)
        np.divide(text, text.sum(axis=-1, keepdims=True), out=text)
    return mx.array(shares) @ values
