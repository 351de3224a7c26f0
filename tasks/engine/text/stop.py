"""Stop strings in streamed text: what may be shown, and when to end. No MLX here, so every engine can use it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache


@dataclass(slots=True, frozen=True)
class _Automaton:
    """Aho and Corasick's automaton over all stop strings; node 0 is the root.

    ``steps[n]`` leads to the children of node n, ``falls[n]`` is its longest proper suffix that is a node too,
    ``depths[n]`` its length and ``matches[n]`` the length of the longest stop string that ends there (0: none).
    """

    steps: list[dict[str, int]]
    falls: list[int]
    depths: list[int]
    matches: list[int]

    def next(self, node: int, char: str) -> int:
        while node and char not in self.steps[node]:
            node = self.falls[node]
        return self.steps[node].get(char, 0)


@lru_cache(maxsize=256)
def _automaton(stop: tuple[str, ...]) -> _Automaton:
    made = _Automaton([{}], [0], [0], [0])
    for word in stop:
        node = 0
        for char in word:
            if char not in made.steps[node]:
                made.steps[node][char] = len(made.steps)
                made.steps.append({})
                made.falls.append(0)
                made.depths.append(made.depths[node] + 1)
                made.matches.append(0)
            node = made.steps[node][char]
        made.matches[node] = len(word)
    _link(made)
    return made


def _link(made: _Automaton) -> None:
    """Set ``falls``, and inherit shorter matches along them, breadth first: a fall is always to a shallower node."""
    level = list(made.steps[0].values())
    while level:
        below: list[int] = []
        for node in level:
            made.matches[node] = made.matches[node] or made.matches[made.falls[node]]
            for char, child in made.steps[node].items():
                made.falls[child] = made.next(made.falls[node], char)
                below.append(child)
        level = below


class StopMatcher:
    """Text in, text out, up to the first stop string; the end of the text is held back while it may begin one.

    The stop string that is complete first wins, and of those complete at the same character the longest, so the result
    does not depend on how the text was cut. A character costs constant time, whatever ``stop`` holds.

    Raises ``ValueError`` for an empty stop string.
    """

    __slots__ = ("_automaton", "_held", "_node", "stopped")

    def __init__(self, stop: tuple[str, ...] = ()) -> None:
        if "" in stop:
            raise ValueError("stop: a stop string must not be empty")
        self._automaton = _automaton(stop) if stop else None
        self._node = 0
        self._held = ""
        #: Whether a stop string was completed; nothing is released after the text before it.
        self.stopped = False

    def push(self, text: str) -> str:
        """Take the next piece of text and return what may be shown now."""
        if self.stopped:
            return ""
        if self._automaton is None:
            return text
        node, automaton = self._node, self._automaton
        for at, char in enumerate(text, start=1):
            node = automaton.next(node, char)
            if automaton.matches[node]:
                return self._stop(self._held + text[:at], automaton.matches[node])
        text = self._held + text
        cut = len(text) - automaton.depths[node]
        self._node, self._held = node, text[cut:]
        return text[:cut]

    def finish(self) -> str:
        """Return what was held back, once no more text comes; nothing after a stop string."""
        held, self._held, self._node = self._held, "", 0
        return held

    def _stop(self, text: str, length: int) -> str:
        self.stopped = True
        self._held = ""
        return text[: len(text) - length]
