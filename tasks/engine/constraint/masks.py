"""Masks: which tokens each constrained row may draw next, from the matchers to the device."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

import mlx.core as mx
import numpy as np
from llguidance.numpy import allocate_token_bitmask

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

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


class Filling:
    """Masks that are filled on a thread of their own while the model computes, where its thread computes itself.

    Args:
        vocabulary_tokens: the width of a mask.
    """

    def __init__(self, vocabulary_tokens: int) -> None:
        self._vocabulary_tokens = vocabulary_tokens
        self._thread = ThreadPoolExecutor(1, "masks")
        self._begun: tuple[list[Matcher], Future[npt.NDArray[np.int32]]] | None = None

    def begin(self, matchers: list[Matcher]) -> None:
        """Fill the masks of these matchers, which nobody else may use until :meth:`masks` has returned them.

        Waits for masks that were begun before and not taken, as of a step that failed.
        """
        if self._begun is not None:
            wait([self._begun[1]])
        self._begun = (matchers, self._thread.submit(fill, matchers, self._vocabulary_tokens)) if matchers else None

    def masks(self, matchers: list[Matcher]) -> npt.NDArray[np.int32]:
        """The masks of these matchers: those that were begun, or else they are filled now, as for rows that interrupt a step."""
        if self._begun is None or self._begun[0] != matchers:
            return fill(matchers, self._vocabulary_tokens)
        masks, self._begun = self._begun[1], None
        return masks.result()


def apply(logits: mx.array, masks: npt.NDArray[np.int32]) -> mx.array:
    """Logits in single precision, ``[rows, vocabulary]``, without the tokens whose bit is not set.

    A byte for eight tokens is what goes to the device, which looks its bits up in a table. Minus infinity is added: choosing
    between two arrays takes MLX's CPU backend four times as long, and more where others use the machine.
    """
    rows, vocabulary = logits.shape
    added = mx.array(_ADDED)[mx.array(masks.view(np.uint8))].reshape(rows, -1)
    return logits + added[:, :vocabulary]


def apply_on_host(logits: npt.NDArray[np.float32], places: Sequence[int], masks: npt.NDArray[np.int32]) -> None:
    """The same for some rows of numpy's logits, ``[rows, vocabulary]``, in place. On a CPU it takes a tenth of the time."""
    vocabulary = logits.shape[-1]
    for place, mask in zip(places, masks, strict=True):
        logits[place] += _ADDED.take(mask.view(np.uint8), axis=0).reshape(-1)[:vocabulary]
