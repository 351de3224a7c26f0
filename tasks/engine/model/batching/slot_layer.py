"""One layer's slots, as a model sees them.

A model computes MLX's arrays or numpy's (:mod:`tasks.engine.model.layout.host`); a layer takes in both.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tasks.engine.model.layout.threads import HostThreads

#: Slots grow by so many tokens, or by a share of what they have, and by so many rows at a time: growing copies everything.
GROW_TOKENS = 64
GROW_SHARE = 1 / 8
GROW_ROWS = 4


def room(tokens: int) -> int:
    """For how many tokens a slot is made that is to hold so many."""
    step = GROW_TOKENS * max(1, int(tokens * GROW_SHARE) // GROW_TOKENS)
    return -(-tokens // step) * step


@dataclass(slots=True, frozen=True)
class Call:
    """One call of the model for so many inputs: input i has ``count`` tokens from position ``offsets[i]`` on.

    Its token ``sources[n]`` goes into ``slots[n]`` at ``targets[n]``; without sources input i goes into slot i.
    ``masked`` says that some inputs see less than others. Arrays are those of ``numbers``: of numpy or of MLX.
    ``pause`` is called in each layer, and may call the model with other caches.
    ``further`` names the inputs that have no slot of their own, by the slot that they look at, and ``threads`` share attention
    out: both for numpy alone.
    """

    numbers: Any
    inputs: int
    offsets: Any
    count: int
    longest: int
    masked: bool
    sources: Any = None
    slots: Any = None
    targets: Any = None
    pause: Callable[[], None] | None = None
    further: Mapping[int, list[int]] = field(default_factory=dict)
    threads: HostThreads | None = None

    @property
    def seen_slots(self) -> int:
        """The number of slots that the inputs look at."""
        return self.inputs - sum(map(len, self.further.values()))

    def places(self) -> Any:
        """Return the place of each token, ``[inputs, count]``."""
        return self.offsets[:, None] + self.numbers.arange(self.count)[None]

    def stand_still(self, *computed: Any) -> None:
        """Let others compute something, now that this call has come as far as to these arrays."""
        if self.pause is not None:
            if self.numbers is mx:
                mx.eval(*computed)  # MLX would compute nothing before the end of the call
            self.pause()


class SlotLayer:
    """One layer's slots, as a model sees them: a cache of mlx-lm's."""

    def __init__(self, keys: mx.array | None = None, values: mx.array | None = None) -> None:
        self.keys, self.values = keys, values
        self.call: Call | None = None

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
    def offset(self) -> Any:
        """The position of each input's first token, ``[inputs]``."""
        assert self.call is not None
        return self.call.offsets

    def update_and_fetch(self, keys: Any, values: Any) -> tuple[Any, Any]:
        """Take in the call's keys and values, ``[inputs, heads, count, width]``, and return all slots that its inputs see.

        numpy's arrays are written into the memory of MLX's. What others may still read of that is behind no row's length.
        """
        call = self.call
        assert call is not None
        call.stand_still(keys, values)
        self.keys = grown(self.keys, call.seen_slots, call.longest, keys)
        self.values = grown(self.values, call.seen_slots, call.longest, values)
        if call.numbers is mx:
            self.keys, self.values = self._taken(self.keys, keys, call), self._taken(self.values, values, call)
            both = self.keys, self.values
        else:
            both = np.asarray(self.keys), np.asarray(self.values)
            for array, new in zip(both, (keys, values), strict=True):
                self._taken(array, new, call)
        seen, seen_values = (array[: call.seen_slots, :, : call.longest] for array in both)
        return seen, seen_values

    def make_mask(self, count: int, return_array: bool = False, window_size: int | None = None) -> Any:
        """Return which places each token sees, ``[inputs, 1, count, longest]``; ``None`` where it sees all.

        mlx-lm's word for all places up to each token's own is ``"causal"``; numpy's attention knows where those end.
        """
        call = self.call
        assert call is not None
        if window_size is None and not return_array:
            if count == 1 and not call.masked:
                return None
            if count > 1 and call.numbers is np:
                return "causal"
        seen, places = call.numbers.arange(call.longest)[None, None], call.places()[:, :, None]
        mask = seen <= places
        if window_size is not None:
            mask = mask & (places < seen + window_size)
        return mask[:, None]

    @staticmethod
    def _taken(array: Any, new: Any, call: Call) -> Any:
        rows = call.numbers.arange(call.inputs)
        if call.sources is not None:
            array[call.slots, :, call.targets] = new[call.sources, :, 0]
        elif call.count == 1:
            array[rows, :, call.offsets] = new[:, :, 0]
        elif call.numbers is np:
            for row, offset in enumerate(call.offsets):
                array[row, :, offset : offset + call.count] = new[row]
        else:
            array[rows[:, None], :, call.places()] = new.transpose(0, 2, 1, 3)
        return array


def grown(array: mx.array | None, rows: int, tokens: int, like: Any) -> mx.array:
    """An array with room for so many rows and tokens, and what was there."""
    old_rows, old_tokens = (0, 0) if array is None else (array.shape[0], array.shape[2])
    if array is not None and old_rows >= rows and old_tokens >= tokens:
        return array
    if rows > max(old_rows, 1):
        rows = -(-rows // GROW_ROWS) * GROW_ROWS
    if tokens > old_tokens:
        tokens = room(tokens)
    shape = (max(rows, old_rows), like.shape[1], max(tokens, old_tokens), like.shape[3])
    grown = mx.zeros(shape, like.dtype if isinstance(like, mx.array) else mx.float32)
    if array is not None:
        grown[:old_rows, :, :old_tokens] = array
    return grown


def _put(array: mx.array | None, first: int, new: mx.array) -> mx.array:
    rows, tokens = first + new.shape[0], new.shape[2]
    array = grown(array, rows, tokens, new)
    array[first:rows, :, :tokens] = new
    return array
