"""The memory that an engine holds beside its weights: a request's KV cache by kinds of layers, and a margin for one step."""

from __future__ import annotations

from dataclasses import dataclass

#: mlx-lm's caches grow by this many tokens at a time (``KVCache.step``).
STEP_TOKENS = 256
#: While nobody decodes, a prefill step may have this many times ``prefill_step_tokens``.
IDLE_PREFILL_FACTOR = 4
#: One layer's old and new cache while it grows, and the activations of one prefill step.
MARGIN_BYTES = 16 << 20
MARGIN_SHARE = 32


@dataclass(slots=True, frozen=True)
class KvWindow:
    """Layers that keep the last ``tokens`` tokens, at ``bytes_per_token`` in all."""

    tokens: int
    bytes_per_token: int


@dataclass(slots=True, frozen=True, kw_only=True)
class KvSize:
    """The cache of one row.

    Args:
        bytes_per_token: layers that keep every token.
        bytes_per_row: states whose size does not depend on the length.
        wide_bytes_per_row: such states that have 32 bits, however wide the model computes.
        windows: layers with a sliding window, one entry for each size of window.
    """

    bytes_per_token: int = 0
    bytes_per_row: int = 0
    wide_bytes_per_row: int = 0
    windows: tuple[KvWindow, ...] = ()

    def row_bytes(self, tokens: int) -> int:
        """A row of so many tokens."""
        held = -(-tokens // STEP_TOKENS) * STEP_TOKENS
        # A window grows from wherever its prompt ended, and keeps no more than it shows.
        grown = tokens + STEP_TOKENS - 1
        windows = sum(min(grown, window.tokens) * window.bytes_per_token for window in self.windows)
        return self.bytes_per_row + self.wide_bytes_per_row + held * self.bytes_per_token + windows

    def prefill_bytes(self, tokens: int) -> int:
        """Return the bytes that a prefill step of so many tokens, over all rows, holds in windows beyond their size."""
        return tokens * sum(window.bytes_per_token for window in self.windows)

    def times(self, factor: int) -> KvSize:
        """The same with values of so many times the width."""
        return KvSize(
            bytes_per_token=self.bytes_per_token * factor,
            bytes_per_row=self.bytes_per_row * factor,
            wide_bytes_per_row=self.wide_bytes_per_row,
            windows=tuple(KvWindow(window.tokens, window.bytes_per_token * factor) for window in self.windows),
        )


def margin_bytes(weights_bytes: int, kv: KvSize, prefill_step_tokens: int) -> int:
    """Return the bytes kept free for one step: 16 MiB, a 32nd of the weights, and what windows hold beyond their size."""
    return MARGIN_BYTES + weights_bytes // MARGIN_SHARE + kv.prefill_bytes(IDLE_PREFILL_FACTOR * prefill_step_tokens)
