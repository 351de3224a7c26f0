"""A chain's previous answer, and where it goes in the next request."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.client.request.chaining import previous_of, with_previous
from tasks.client.request.parameters import parse
from tasks.errors import InvalidRequest
from tests.garbage import JSON


def user(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


ANSWER: dict[str, Any] = {"text": "Paris", "finish_reason": "stop"}


def test_none() -> None:
    """Without a previous answer the keywords are what they were."""
    values = {"prompt": "{previous}"}
    assert with_previous(None, values) is values


@pytest.mark.parametrize(("args", "previous"), [(None, None), ((), None), (["x"], "x"), ((None,), None)])
def test_is_the_positional_argument(args: Any, previous: Any) -> None:
    """Celery gives the previous answer as the one positional argument."""
    assert previous_of(args) == previous


def test_in_the_prompt() -> None:
    """It replaces its mark in the prompt, however often that is there; without a mark it follows."""
    assert with_previous(ANSWER, {"prompt": "{previous}? {previous}!"}) == {"prompt": "Paris? Paris!"}
    assert with_previous("Paris", {"prompt": "Tell me of "}) == {"prompt": "Tell me of Paris"}


def test_in_messages() -> None:
    """It replaces its mark in each message that has one, in text parts too; without a mark it is one more message."""
    marked = [{"role": "system", "content": "Be brief."}, *user("Where is {previous}?")]
    assert with_previous(ANSWER, {"messages": marked})["messages"] == [marked[0], *user("Where is Paris?")]
    parts = user([{"type": "text", "text": "Where is {previous}?"}])
    replaced = user([{"type": "text", "text": "Where is Paris?"}])
    assert with_previous(ANSWER, {"messages": parts})["messages"] == replaced
    assert with_previous(ANSWER, {"messages": marked[:1]})["messages"] == [marked[0], *user("Paris")]
    assert with_previous(ANSWER, {"model": "m"}) == {"model": "m", "messages": user("Paris")}


def test_changes_nothing_of_the_callers() -> None:
    """The caller's own objects stay as they are: Celery may send them again."""
    values = {"messages": user("{previous}")}
    with_previous(ANSWER, values)
    assert values == {"messages": user("{previous}")}


def test_several_answers() -> None:
    """A chord's answers are joined by blank lines, in order."""
    assert with_previous([ANSWER, "Rome"], {"prompt": "{previous}"}) == {"prompt": "Paris\n\nRome"}


@pytest.mark.parametrize("previous", [5, {"message": "x"}, [5], b"x", object()])
def test_something_else(previous: Any) -> None:
    """What is no answer is refused, and the message says what is expected."""
    with pytest.raises(InvalidRequest, match="expected the previous task's answer"):
        with_previous(previous, {"prompt": "a"})


def test_more_than_one() -> None:
    """A second positional argument is an error, and not ignored."""
    with pytest.raises(InvalidRequest, match="2 positional arguments: at most one"):
        previous_of(["a", "b"])


@given(previous=JSON, values=st.dictionaries(st.sampled_from(["prompt", "messages", "model"]), JSON, max_size=3))
def test_nothing_else_is_raised(previous: Any, values: dict[str, Any]) -> None:
    """Whatever the keywords are, putting an answer in and checking them raises nothing but InvalidRequest."""
    with contextlib.suppress(InvalidRequest):
        parse(with_previous(previous, values))
