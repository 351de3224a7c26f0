"""An answer on a terminal breaks between words, whatever the pieces are in which it comes."""

from __future__ import annotations

import pytest

from tasks.cli.flow import Flow

SAID = "One two three four.\n    code is left as it is, however long it may be\nfive extraordinarily-long-words\n日本 日本 日本\n"
SHOWN = (
    "One two \nthree \nfour.\n    code is left as it is, however long it may be\nfive \nextraordinarily-long-words\n"
    "日本 日本 \n日本\n"
)


def flowed(pieces: list[str], width: int | None) -> str:
    flow = Flow(width)
    return "".join([*map(flow.add, pieces), flow.end()])


@pytest.mark.parametrize("size", [1, 2, 3, 7, len(SAID)])
def test_lines_break_between_words_in_any_split_of_the_text(size: int) -> None:
    pieces = [SAID[start : start + size] for start in range(0, len(SAID), size)]
    assert flowed(pieces, 10) == SHOWN


def test_what_is_no_terminal_gets_the_text_as_it_is() -> None:
    flow = Flow(None)
    assert flow.add("One two thr") == "One two thr"
    assert flow.add("ee") == "ee"
    assert flow.end() == ""


def test_the_last_word_is_kept_until_it_is_whole() -> None:
    flow = Flow(10)
    assert flow.add("One two thr") == "One two "
    assert flow.add("ee ") == "\nthree "
    assert flow.end() == ""
