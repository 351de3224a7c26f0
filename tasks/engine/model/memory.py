"""How much memory a batch may come to need, and whether that fits. Arithmetic only, in bytes and tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

#: mlx-lm's caches grow by this many tokens at a time (``KVCache.step``).
CACHE_STEP_TOKENS = 256
MARGIN_BYTES = 16 << 20
MARGIN_SHARE = 32


@dataclass(slots=True, frozen=True)
class Budget:
    """What an engine may hold: weights, the batch at its longest, cached prompts, and a margin for activations."""

    total_bytes: int
    weights_bytes: int
    kv_bytes_per_token: int
    kv_bytes_per_row: int = 0

    @property
    def margin_bytes(self) -> int:
        """16 MiB and a 32nd of the weights: one layer's old and new cache while it grows, and one prefill step."""
        return MARGIN_BYTES + self.weights_bytes // MARGIN_SHARE

    def batch_bytes(self, lengths: Sequence[int]) -> int:
        """The batch's cache when every row has got as long as it may: a batch is as wide as its longest row."""
        steps = -(-max(lengths, default=0) // CACHE_STEP_TOKENS)
        return len(lengths) * (self.kv_bytes_per_row + steps * CACHE_STEP_TOKENS * self.kv_bytes_per_token)

    def room_bytes(self, lengths: Sequence[int]) -> int:
        """What is left for cached prompts beside a batch of rows of these lengths (prompt and answer, in tokens)."""
        return self.total_bytes - self.weights_bytes - self.margin_bytes - self.batch_bytes(lengths)

    def refusal(self, length: int) -> str:
        """Why a request of this length can never fit, with the numbers."""
        return (
            f"prompt and max_tokens are {length} tokens, whose KV cache takes {self.batch_bytes([length])} bytes; with "
            f"{self.weights_bytes} bytes of weights and a margin of {self.margin_bytes} bytes that is over the memory "
            f"budget of {self.total_bytes} bytes. Lower max_tokens, shorten the prompt, or raise the budget"
        )
