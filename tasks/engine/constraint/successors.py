"""Tokens that followed each other in answers of one grammar: the text around the values, which is the same in all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

#: A token is expected where the latest so many times all had it, after so many equal tokens.
SURE_AFTER = {3: 4, 2: 6, 1: 12}
LONGEST = max(SURE_AFTER)
#: The contexts that are kept, the last used ones.
MOST_CONTEXTS = 2048


class Successors:
    """The tokens that came after the last few ones, and how often each time."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, ...], tuple[int, int]] = {}

    @property
    def size(self) -> int:
        """The number of known contexts."""
        return len(self._known)

    def note(self, taken: Sequence[int]) -> None:
        """The last of these tokens of an answer came after those before it."""
        *before, token = taken[-1 - LONGEST :]
        for size in range(1, len(before) + 1):
            context = tuple(before[-size:])
            followed, times = self._known.pop(context, (token, 0))
            self._known[context] = (token, times + 1 if followed == token else 1)
        while len(self._known) > MOST_CONTEXTS:
            del self._known[next(iter(self._known))]

    def expected(self, taken: Sequence[int]) -> int | None:
        """The token that comes after these, as a rule."""
        for size, least in SURE_AFTER.items():
            token, times = self._known.get(tuple(taken[-size:]), (None, 0))
            if times >= least and len(taken) >= size:
                return token
        return None
