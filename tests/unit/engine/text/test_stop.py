"""Stop strings: nothing of one is ever released, whatever way the text is cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.engine.text.stop import StopMatcher

# A tiny alphabet makes partial, nested and overlapping matches the rule.
STOPS = st.lists(st.text("ab\n", min_size=1, max_size=5), max_size=4).map(tuple)
PIECES = st.lists(st.text("ab\nc", max_size=6), max_size=12)


def text_before_stop(text: str, stop: tuple[str, ...]) -> tuple[str, bool]:
    """The oracle: the shortest prefix that ends in a stop string, less the longest stop string it ends in."""
    for end in range(1, len(text) + 1):
        lengths = [len(word) for word in stop if text[:end].endswith(word)]
        if lengths:
            return text[: end - max(lengths)], True
    return text, False


@given(STOPS, PIECES)
@settings(deadline=None)
def test_released_text_is_the_text_before_the_first_stop(stop: tuple[str, ...], pieces: list[str]) -> None:
    """For any cut of any text, what is released in all equals a naive search over the whole text."""
    matcher = StopMatcher(stop)
    released = "".join(matcher.push(piece) for piece in pieces) + matcher.finish()
    assert (released, matcher.stopped) == text_before_stop("".join(pieces), stop)


@given(STOPS, PIECES)
@settings(deadline=None)
def test_each_release_is_safe_and_prompt(stop: tuple[str, ...], pieces: list[str]) -> None:
    """After every piece, exactly the longest end that may begin a stop string is held back, and no more."""
    matcher = StopMatcher(stop)
    seen = released = ""
    for piece in pieces:
        seen += piece
        released += matcher.push(piece)
        if matcher.stopped:
            return
        begins = [word[:n] for word in stop for n in range(1, len(word)) if seen.endswith(word[:n])]
        assert released == seen[: len(seen) - max(map(len, begins), default=0)]


def test_nothing_comes_after_a_stop() -> None:
    """Once stopped, pushes and the finish release nothing."""
    matcher = StopMatcher(("END",))
    assert matcher.push("helloEN") == "hello"
    assert matcher.push("D and more") == ""
    assert matcher.stopped
    assert matcher.push("more") == ""
    assert matcher.finish() == ""


def test_the_stop_that_is_complete_first_wins_however_the_text_is_cut() -> None:
    """A short stop string inside a longer one ends the text before the longer one is complete."""
    whole, split = StopMatcher(("abcd", "bc")), StopMatcher(("abcd", "bc"))
    assert whole.push("xabcd") == "xa"
    assert "".join(map(split.push, "xabcd")) == "xa"


def test_of_two_complete_at_once_the_longer_wins() -> None:
    """Nothing of the longer stop string is released when a shorter one ends with it."""
    matcher = StopMatcher(("bc", "abc"))
    assert matcher.push("xabc") == "x"


def test_without_stop_strings_text_passes_at_once() -> None:
    """No stop strings: nothing is held back."""
    matcher = StopMatcher()
    assert matcher.push("abc") == "abc"
    assert matcher.finish() == ""
    assert not matcher.stopped


def test_an_empty_stop_string_is_refused() -> None:
    """An empty stop string would end every text before its first character, so it is an error that says so."""
    with pytest.raises(ValueError, match="must not be empty"):
        StopMatcher(("a", ""))
