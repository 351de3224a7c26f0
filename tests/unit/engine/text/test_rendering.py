"""What a template wrote is written down whole, small, and without the conversation's own words."""

from __future__ import annotations

import base64
import json
import random
import string
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.engine.text import rendering


def literal(written: str) -> str:
    """What stands in it that is no reference."""
    said = json.loads(zlib.decompress(base64.b64decode(written)))
    return "".join(part for part in said if isinstance(part, str))


TEXTS = st.text('ab \n"\\<|é\U000f0000', max_size=20)


@given(st.lists(TEXTS, max_size=5), st.lists(TEXTS | st.integers(0, 4), max_size=8))
def test_any_text_is_read_as_it_was_written(words: list[str], parts: list[str | int]) -> None:
    """Whatever a template makes of whatever words, in any order."""
    text = "".join("".join(words[part : part + 1]) if isinstance(part, int) else part for part in parts)
    written = rendering.write(text, words)
    assert rendering.read(written, words) == (text or None)


LONG = "\n".join("".join(random.Random(n).choices(string.ascii_letters + " ", k=60)) for n in range(2000))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text,
        lambda text: text.strip(),
        json.dumps,
        lambda text: text.partition("\n")[2],
        lambda text: text.replace("\n", "\r\n"),
    ],
)
def test_words_are_not_written_down(change: Any) -> None:
    """Whole, trimmed, escaped and split texts are references: a long conversation takes little, and none of it is said."""
    words = ["You are kind to everybody.\n", LONG, "and so on"]
    text = "<|system|>" + change(words[0]) + "Today: 2026-11-27<|user|>" + change(words[1]) + "<|bot|>" + words[2]
    written = rendering.write(text, words)
    assert rendering.read(written, words) == text
    said = literal(written)
    assert "Today: 2026-11-27" in said
    assert not any(line in said for line in LONG.splitlines())


def test_what_would_be_too_long_is_left_out() -> None:
    """A template that writes something else of a long conversation has it rendered again."""
    noise = "".join(random.Random(1).choices(string.printable, k=2 * rendering.MOST_BYTES))
    assert rendering.write(noise, ["x"]) == ""


@pytest.mark.parametrize(
    "written",
    [
        "",
        "?",
        "AAAA",
        base64.b64encode(zlib.compress(b"{")).decode(),
        base64.b64encode(zlib.compress(b"[[1]]")).decode(),
    ],
)
def test_what_cannot_be_read_is_none(written: str) -> None:
    """As where an earlier version wrote nothing."""
    assert rendering.read(written, ["abc"]) is None


def test_it_is_unpacked_up_to_a_bound() -> None:
    """What would unpack to more is not read."""
    said = json.dumps(["x" * (rendering.MOST_UNPACKED_BYTES + 1)])
    assert rendering.read(base64.b64encode(zlib.compress(said.encode())).decode(), []) is None


def test_whose_words_they_are() -> None:
    """Contents, names and arguments of a conversation, without the words that the format fixes."""
    call = {
        "type": "function",
        "function": {"name": "f", "arguments": {"x": ["y", 1], "z": {"role": "b", "type": ["c"]}}},
    }
    said = [{"role": "user", "content": "a", "tool_calls": [call]}]
    assert list(rendering.words_of(said)) == ["a", "f", "y", "b", "c"]
