"""Urgent rows: their prompts are computed alone, between two steps of the other rows or in the middle of one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from tasks.engine.model.batching.rows import Prefilling, Rows, merging

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.engine.generation.runner import Draw
    from tasks.engine.model.batching.head import Head
    from tasks.engine.model.batching.rows import Row
    from tasks.engine.model.batching.stepping import Stepping
    from tasks.engine.sampling.sampler import BatchSampler


#: Others are expected for so many steps after an urgent row.
EXPECTED_STEPS = 256
#: A row that comes in the middle of a step waits for the layer that is being computed. While some are expected, a layer of a
#: prefill step takes no longer than this.
LAYER_S = 0.015


class Urgent(Rows):
    """Urgent rows with their first tokens, until the next step begins and they join the others.

    Args:
        head: the model.
        sampler: draws for all rows.
        stepping: how rows are stepped. Those in slots can stand still in the middle of a step.
        most_tokens: prompt tokens that are computed alone before the others get a step.
    """

    def __init__(self, head: Head, sampler: BatchSampler, stepping: Stepping, *, most_tokens: int) -> None:
        super().__init__([], None)
        self._head = head
        self._sampler = sampler
        self._most_tokens = self._left_tokens = most_tokens
        self._pause: Callable[[], None] | None = None
        self._slots, self._layers = stepping.slots, 0
        self._steps_since = EXPECTED_STEPS
        #: Makes the caches of all rows, those of the other groups included: what stands still is a step of theirs.
        self.merge = merging(stepping.batching, stepping.slots, self._stand_still)
        #: How long the step of the others has stood still.
        self.seconds = 0.0

    def begin_step(self, pause: Callable[[], None] | None) -> None:
        """A step of the others begins, which calls this in its middle."""
        self._pause, self._left_tokens, self.seconds = pause, self._most_tokens, 0.0
        self._steps_since += 1

    @property
    def prefill_s(self) -> float | None:
        """The seconds that a prefill step of the others may take while urgent rows come; ``None`` for as long as usual."""
        is_expected = self._slots and self._steps_since < EXPECTED_STEPS
        return LAYER_S * self._layers if is_expected else None

    def compute(self, row: Row, cache: list[Any]) -> list[Draw] | None:
        """Compute a row's prompt and its first token, without touching others; ``None`` where it is too long for that."""
        alone = Prefilling(self._head, self._sampler)
        todo = len(row.tokens) - row.computed  # a last token, too: it would wait for the end of the step
        if todo > self._left_tokens:
            return None
        self._left_tokens -= todo
        row.is_urgent = True
        self._layers, self._steps_since = len(cache), 0
        started, pause = time.perf_counter(), self._pause
        self._pause = None  # no other one interrupts this
        alone.join(Rows([row], self.merge([cache])))
        draws = alone.compute([todo])
        self.join(alone)
        self._pause = pause
        self.seconds += time.perf_counter() - started
        return draws

    def take(self) -> Rows:
        """Take out all rows."""
        taken = Rows(self.rows, self.caches)
        self.keep([])
        return taken

    def _stand_still(self) -> None:
        if self._pause is not None:
            self._pause()
