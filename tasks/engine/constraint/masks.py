"""Masks: which tokens each constrained row may draw next, from the matchers to the device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx
import numpy as np
from llguidance.numpy import allocate_token_bitmask

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from tasks.engine.constraint.grammar import Matcher

#: What is added for each bit of each byte, the lowest first, as llguidance has them: nothing, or what bars the token.
_ADDED = np.where(
    np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little"),
    np.float32(0),
    np.float32(-np.inf),
)


def fill(matchers: Sequence[Matcher], vocabulary_tokens: int) -> npt.NDArray[np.int32]:
    """One bit for each token, ``[rows, words]``; all are set for a matcher that has failed, whose draw means nothing."""
    masks = allocate_token_bitmask(len(matchers), vocabulary_tokens)
    for row, matcher in enumerate(matchers):
        matcher.fill(masks, row)
        if matcher.error:
            masks[row] = -1
    return masks


def apply(logits: mx.array, masks: npt.NDArray[np.int32]) -> mx.array:
    """Logits in single precision, ``[rows, vocabulary]``, without the tokens whose bit is not set.

    A byte for eight tokens is what goes to the device, which looks its bits up in a table. Minus infinity is added: choosing
    between two arrays takes MLX's CPU backend four times as long, and more where others use the machine.
    """
    rows, vocabulary = logits.shape
    added = mx.array(_ADDED)[mx.array(masks.view(np.uint8))].reshape(rows, -1)
    return logits + added[:, :vocabulary]
