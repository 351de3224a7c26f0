"""Estimates the memory that a batch may come to need. Arithmetic only, in bytes and tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.messages.memory import margin_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.messages.memory import KvSize


@dataclass(slots=True, frozen=True)
class MemoryBound:
    """The memory that an engine may hold: weights, the batch at its longest, cached prompts, and a margin for activations."""

    total_bytes: int
    weights_bytes: int
    kv: KvSize
    prefill_step_tokens: int = 0

    @property
    def margin_bytes(self) -> int:
        """The bytes kept free for one step."""
        return margin_bytes(self.weights_bytes, self.kv, self.prefill_step_tokens)

    def batch_bytes(self, lengths: Sequence[int]) -> int:
        """The batch's cache when every row has got as long as it may: a batch is as wide as its longest row."""
        return len(lengths) * self.kv.row_bytes(max(lengths, default=0))

    def room_bytes(self, lengths: Sequence[int]) -> int:
        """Return the bytes left for cached prompts beside a batch of rows of these lengths (prompt and answer, in tokens)."""
        return self.total_bytes - self.weights_bytes - self.margin_bytes - self.batch_bytes(lengths)

    def refusal(self, length: int) -> str:
        """Explain why a request of this length can never fit, with the numbers."""
        return (
            f"prompt and max_tokens are {length} tokens, whose KV cache takes {self.batch_bytes([length])} bytes; with "
            f"{self.weights_bytes} bytes of weights and a margin of {self.margin_bytes} bytes that is over the memory "
            f"budget of {self.total_bytes} bytes. Lower max_tokens, shorten the prompt, or raise the budget"
        )
