"""An answer: a dictionary for people and programs, and no word of its text for monitors."""

from __future__ import annotations

import json

from celery.utils.saferepr import saferepr
from kombu.utils.json import dumps, loads

from tasks.client.answers.answer import Answer

ANSWER = Answer(
    text="a secret of state",
    finish_reason="length",
    usage={"prompt_tokens": 3, "cached_tokens": 0, "completion_tokens": 4, "total_tokens": 7},
    model="fake:10",
)


def test_its_text_is_not_shown() -> None:
    """What Celery puts into its log and its events says how long the answer is, and nothing of it."""
    assert repr(ANSWER) == "<4 tokens of fake:10, finish_reason=length>"
    assert "secret" not in saferepr(ANSWER)
    assert "secret" not in f"{ANSWER}"


def test_it_is_stored_whole() -> None:
    """Kombu's JSON has all of it, as a plain object."""
    assert loads(dumps({"result": ANSWER}))["result"] == dict(ANSWER)
    assert json.loads(dumps(ANSWER))["text"] == "a secret of state"


def test_it_reads_like_a_dictionary() -> None:
    """A task of one's own takes it for the dictionary that ``get()`` returns."""
    assert ANSWER["usage"]["total_tokens"] == 7
    assert {**ANSWER}["finish_reason"] == "length"
    assert ANSWER == {**ANSWER}


def test_without_usage_it_can_be_shown() -> None:
    """An answer that somebody made by hand does not break a log line."""
    assert repr(Answer()) == "<None tokens of None, finish_reason=None>"
