"""What is expected of an answer, by what others of its grammar said."""

from __future__ import annotations

from tasks.engine.constraint.successors import MOST_CONTEXTS, Successors

#: Names of fields and their signs, with values between them that differ.
NAME, COLON, QUOTE, COMMA, CITY = range(5)


def note(known: Successors, answer: list[int]) -> None:
    """An answer is drawn, token by token."""
    for count in range(1, len(answer) + 1):
        known.note(answer[:count])


def test_text_around_values_is_expected_and_values_are_not() -> None:
    """After a few answers it is known what comes before the first value; what comes behind one needs more of them."""
    known = Successors()
    for value in range(100, 112):
        assert known.expected([NAME, COLON]) == (QUOTE if value >= 106 else None)
        assert known.expected([NAME, COLON, QUOTE]) is None
        note(known, [NAME, COLON, QUOTE, value, COMMA, CITY])
    assert known.expected([COLON, QUOTE, 150, COMMA]) == CITY


def test_what_changes_is_not_expected_any_more() -> None:
    """One answer that goes on otherwise is enough."""
    known = Successors()
    for _ in range(12):
        note(known, [1, 2, 3])
    assert known.expected([1, 2]) == 3
    note(known, [1, 2, 4])
    assert known.expected([1, 2]) is None


def test_what_is_remembered_is_bounded() -> None:
    """Of long answers the last used places are kept."""
    known = Successors()
    for _ in range(12):
        note(known, [1, 2, 3])
    note(known, list(range(10, 10 + MOST_CONTEXTS)))
    assert known.expected([1, 2]) is None
    assert known.size <= MOST_CONTEXTS
