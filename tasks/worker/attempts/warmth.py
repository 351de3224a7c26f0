"""Notes which beginnings of prompts this worker computes, and for how long a request is worth waiting for it.

A request that waits for the worker where its prompt is warm gains the time of a prefill, and loses its wait. So it waits for half
of that time at most. The time is measured here, in seconds for a character, since producers count characters.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from tasks.broker.message.prefix import prefixes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tasks.broker.message.prefix import Prefix
    from tasks.worker.attempts.attempt import Attempt
    from worker_config.settings import Settings

#: The number of prefills of which the quickest counts: the others waited for a batch as well.
MOST_MEASURED = 32
#: The time of a shorter prompt says more of the rest of a step.
LEAST_TOKENS = 64
#: What a prefill gains that a request does not wait for.
SHARE = 0.5


class Warmth:
    """Notes the prompts that are warm here. Every thread may call it.

    Args:
        settings: the default model, the longest that a request is worth waiting for, and whether any is.
        note: told how many ms a request is worth waiting, by the digests of beginnings that are computed now.
    """

    def __init__(self, settings: Settings, note: Callable[[Mapping[str, int]], None]) -> None:
        self._settings = settings
        self._note = note
        self._lock = threading.Lock()
        self._costs_s: dict[str, deque[float]] = {}

    def prefixes(self, previous: Any, values: Mapping[str, Any]) -> list[Prefix]:
        """The beginnings of a request's prompt, the longest first; none where its producer did not look for them either."""
        if previous is not None or not self._settings.affinity:
            return []
        return prefixes_of(values, self._settings.default_model)

    def computing(self, model: str, prefixes: Sequence[Prefix]) -> None:
        """Note that an engine computes this prompt now, or has it: requests that begin alike should come here."""
        if prefixes:
            self._note({prefix.digest: self._wait_ms(model, prefix.characters) for prefix in prefixes})

    def computed(self, attempt: Attempt, prefixes: Sequence[Prefix]) -> None:
        """An attempt has ended whose prompt begins like this."""
        computed = attempt.prompt_tokens - attempt.cached_tokens
        if not prefixes or attempt.first_token_at is None or attempt.has_resumed or computed < LEAST_TOKENS:
            return
        characters = prefixes[0].characters * computed / attempt.prompt_tokens
        with self._lock:
            costs_s = self._costs_s.setdefault(attempt.model, deque(maxlen=MOST_MEASURED))
            costs_s.append((attempt.first_token_at - attempt.claimed_at) / characters)

    def _wait_ms(self, model: str, characters: int) -> int:
        """Return for how long a request may wait to save so many characters of prefill; 0 as long as nothing was measured."""
        with self._lock:
            cost_s = min(self._costs_s.get(model, ()), default=0.0)
        return int(min(self._settings.affinity_wait_s, SHARE * cost_s * characters) * 1000)
