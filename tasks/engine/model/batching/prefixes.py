"""Cached prompts: the caches of earlier requests, for requests that begin alike."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mlx_lm.models.cache import (
    ArraysCache,
    CacheList,
    KVCache,
    LRUPromptCache,
    RotatingKVCache,
    can_trim_prompt_cache,
    make_prompt_cache,
    trim_prompt_cache,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mlx.nn.layers.base import Module

    from tasks.engine.model.batching.rows import Row

#: A shared prefix shorter than this is computed again rather than waited for or kept.
SHARED_TOKENS = 64
#: The most tokens that a row that others wait for decodes before its cache is copied.
DONOR_STEPS = 16
#: Cached prompts are bounded in bytes; this bounds the bookkeeping of tiny ones.
MOST_PROMPTS = 1024


class Prefixes:
    """The cached prompts of one model, bounded in bytes.

    ``reach`` is the length up to which a cache can be cut back to any prefix of what it holds: a window that is full has
    forgotten its beginning, and a recurrent state has no parts. What is longer serves those alone that begin with all of
    it, as the next turn of a conversation does.
    """

    def __init__(self, model: Module, most_bytes: int) -> None:
        self._model = model
        reach = _reach(make_prompt_cache(model))
        self.reach = 0.0 if reach is None else reach
        self._most_bytes = 0 if reach is None else most_bytes
        self._prompts = LRUPromptCache(MOST_PROMPTS, self._most_bytes)

    @property
    def nbytes(self) -> int:
        """The bytes of the cached prompts."""
        return int(self._prompts.nbytes)

    @property
    def max_bytes(self) -> int:
        """The most bytes that they may take."""
        return int(self._prompts.max_bytes)

    def limit(self, most_bytes: int) -> None:
        """Bound them by this too, from now on."""
        self._prompts.max_bytes = max(0, min(most_bytes, self._most_bytes))
        self._prompts.trim_to(n_bytes=self._prompts.max_bytes)

    def clear(self) -> None:
        """Forget them all."""
        self._prompts.trim_to(n_sequences=0)

    def held(self, tokens: list[int]) -> int:
        """Return how many tokens :meth:`fetch` would spare; copies nothing."""
        length, _ = self._nearest(tokens)
        return length

    def worth_waiting(self, tokens: list[int], coming: Iterable[Row], decoding: Sequence[Row]) -> bool:
        """Whether a prompt that is being computed (``coming``) has a prefix in common with these that is worth waiting for."""
        held: int | None = None
        for row in coming:
            if not self._can_give(len(row.tokens) + DONOR_STEPS):
                continue
            shared = common_prefix(row.tokens, tokens)
            if shared < SHARED_TOKENS:
                continue
            if held is None:
                held = max(self.held(tokens), self.most_shared(tokens, decoding)[0])
            gained = shared - held
            if gained >= SHARED_TOKENS and len(row.tokens) - row.computed <= 2 * gained:
                return True
        return False

    def most_shared(self, tokens: list[int], rows: Sequence[Row]) -> tuple[int, int]:
        """The longest prefix that one of these rows has in common with these tokens, and its place; 0 where none can give it."""
        shared = [
            (common_prefix(row.tokens[: row.computed], tokens) if self._can_give(row.computed) else 0, index)
            for index, row in enumerate(rows)
        ]
        return max(shared, default=(0, 0))

    def _can_give(self, computed: int) -> bool:
        """Return whether a cache of so many tokens can be copied and cut back to a prefix that another prompt shares."""
        return self.max_bytes > 0 and computed <= self.reach

    def fetch(self, tokens: list[int]) -> tuple[list[Any], int]:
        """A cache for the longest known prefix, and its length. The last token is decoding's input, and never in it."""
        length, known = self._nearest(tokens)
        if not length:
            return make_prompt_cache(self._model), 0
        cache, rest = self._prompts.fetch_nearest_cache("", tokens[:known])
        surplus = known - len(rest) - length
        if surplus:
            trim_prompt_cache(cache, surplus)
        return cache, length

    def store(self, tokens: list[int], cache: list[Any]) -> None:
        """Keep the caches of these tokens."""
        self._prompts.insert_cache("", tokens, cache)

    def make_room(self, size_bytes: int) -> bool:
        """Forget the least useful ones for a new one of this size; ``False`` where it is too large."""
        if size_bytes > self._prompts.max_bytes:
            return False
        self._prompts.trim_to(n_bytes=self._prompts.max_bytes - size_bytes)
        return True

    def _nearest(self, tokens: list[int]) -> tuple[int, int]:
        """Return how many tokens a cached prompt spares, and with how many of these to look that prompt up."""
        known = len(tokens)
        found = self._prompts._trie.search("", tokens)
        if found.exact is not None:
            if self._cuttable(found.exact):
                return known - 1, known
            known -= 1
            found = self._prompts._trie.search("", tokens[:known])
            if found.exact is not None:
                return known, known
        shorter = len(found.shorter) if found.shorter is not None else 0
        if found.longer is not None and found.common_prefix > shorter and self._cuttable(found.longer):
            return min(known - 1, found.common_prefix), known
        return shorter, known

    def _cuttable(self, tokens: list[int]) -> bool:
        return bool(can_trim_prompt_cache(self._prompts._trie.get("", tokens).prompt_cache))


def _reach(layers: Any) -> float | None:
    """See :attr:`Prefixes.reach`; ``None`` where a kind of cache is not known here, and nothing of it is kept."""
    reach = math.inf
    for layer in layers:
        if isinstance(layer, CacheList):
            inner = _reach(layer.caches)
            if inner is None:
                return None
            reach = min(reach, inner)
        elif isinstance(layer, RotatingKVCache):
            reach = min(reach, layer.max_size - 1)
        elif isinstance(layer, ArraysCache):
            reach = 0
        elif not isinstance(layer, KVCache):
            return None
    return reach


def common_prefix(left: list[int], right: list[int]) -> int:
    """Return how many tokens two sequences begin with alike."""
    most = min(len(left), len(right))
    start = 0
    while start < most and left[start : start + SHARED_TOKENS] == right[start : start + SHARED_TOKENS]:
        start += SHARED_TOKENS
    for n in range(min(start, most), most):
        if left[n] != right[n]:
            return n
    return most
