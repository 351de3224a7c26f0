"""The memory that the batch may take: which requests fit, and the rest for cached prompts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tasks.engine.generation.memory import MemoryBound

if TYPE_CHECKING:
    from tasks.engine.generation.patience import Patience
    from tasks.engine.generation.runner import ModelRunner
    from tasks.engine.generation.running import Running
    from tasks.engine.generation.sequence import Request
    from tasks.messages.engine import Resize


class Allowance:
    """Bytes for weights, rows and cached prompts.

    Args:
        runner: the model.
        running: the requests of its batch.
        total_bytes: the bound; ``None`` means none.
        patience: says how long a request waits for promised bytes.
    """

    def __init__(self, runner: ModelRunner, running: Running, total_bytes: int | None, patience: Patience) -> None:
        self._runner = runner
        self._running = running
        self._patience = patience
        self._bound = None if total_bytes is None else self._bound_of(total_bytes)
        self._promised: MemoryBound | None = None
        self._resizing = False

    def fits(self, request: Request) -> bool:
        """Whether a request may join; then cached prompts make room for it."""
        if self._bound is None:
            return True
        room = self._bound.room_bytes(self._running.lengths(request))
        if room >= 0:
            self._runner.limit_prompt_cache(room)
        return room >= 0

    def fits_without_batch_work(self, request: Request) -> bool:
        """Whether an urgent request would fit if all batch work left."""
        if self._bound is None:
            return True
        others = [other.most_tokens for other in self._running.values() if not other.submit.gives_way]
        return self._bound.room_bytes([*others, request.most_tokens]) >= 0

    def will_fit(self, request: Request) -> bool:
        """Return whether the request fits into promised bytes, which others are about to give back; waits for a moment."""
        if self._promised is None or self._promised.room_bytes([request.most_tokens]) < 0:
            return False
        now = time.monotonic()
        request.held_at = request.held_at or now
        if now - request.held_at > self._patience.promise_s:
            return False
        time.sleep(self._patience.promise_look_s)
        return True

    def refusal(self, request: Request) -> str:
        """Explain, for its error, why a request never fits."""
        assert self._bound is not None
        return self._bound.refusal(request.most_tokens)

    def resize(self, resize: Resize) -> None:
        """Be bound by another total."""
        self._bound = self._bound_of(resize.memory_budget_bytes)
        self._promised = self._bound_of(resize.promised_bytes)
        self._resizing = True

    def free_room(self) -> int | None:
        """Leave cached prompts the bytes that the running batch does not need; return the new total, once that fits one."""
        if self._bound is None:
            return None
        room = self._bound.room_bytes(self._running.lengths())
        self._runner.limit_prompt_cache(room)
        if not self._resizing or room < 0:
            return None
        self._resizing = False
        return self._bound.total_bytes

    def _bound_of(self, total_bytes: int) -> MemoryBound:
        facts = self._runner.facts
        return MemoryBound(total_bytes, facts.weights_bytes, facts.kv, facts.prefill_step_tokens)
