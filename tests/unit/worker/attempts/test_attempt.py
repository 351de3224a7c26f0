"""An attempt: what an engine says of one request, turned into the journal's entries, across attempts."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tasks.journal.claim_answer import ClaimAnswer
from tasks.journal.items import Append
from tasks.messages.answer import usage_of
from tasks.messages.engine import Failed, Finished, Resume, Started, TokenLogprob, Tokens
from tasks.messages.journal import Claim, End, Entry, Error, Release, Start, Token
from tasks.worker.attempts.attempt import Attempt, Fenced

if TYPE_CHECKING:
    from tasks.worker.attempts.job import StopReason

START = Start(attempt=1, model="m", revision="r1", prompt_tokens=3, cached_tokens=0, prompt_hash="h")


def claim(attempt: int = 1, entries: list[Entry] | None = None, **values: Any) -> ClaimAnswer:
    return ClaimAnswer(
        **{
            "kind": "claimed",
            "attempt": attempt,
            "crashes": 0,
            "entries": entries or [],
            "items": [Append.of("t1", 0, Claim(attempt=attempt, worker="a#1"))],
            "owner": "a#1",
            "nonce": "n",
            "queued_ms": 12.3456,
            **values,
        }
    )


def said(index: int, token: int) -> Token:
    return Token(attempt=1, index=index, ids=[token], text=f"{token} ")


@pytest.fixture
def attempt() -> Attempt:
    """A first attempt."""
    return Attempt("t1", claim(), "m")


@pytest.fixture
def second() -> Attempt:
    """A second attempt at a request of which two tokens are in the journal."""
    entries: list[Entry] = [
        Claim(attempt=1, worker="b#1"),
        START,
        Token(attempt=1, index=0, ids=[7], text="One ", kind="reasoning"),
        Token(attempt=1, index=1, ids=[8], text="two ", logprobs=[{"id": 8}]),
    ]
    return Attempt("t1", claim(2, entries), "m")


def test_an_answer(attempt: Attempt) -> None:
    """Start, tokens and end become the journal's entries, numbered from one."""
    assert attempt.take(Started("t1", 3, 1, "h", "R", "r1")) == Start(
        attempt=1, model="m", revision="r1", prompt_tokens=3, cached_tokens=1, prompt_hash="h", rendering="R"
    )
    assert attempt.take(Tokens("t1", 0, [7], "One ")) == Token(attempt=1, index=0, ids=[7], text="One ")
    assert attempt.take(Tokens("t1", 1, [8], "two")) == Token(attempt=1, index=1, ids=[8], text="two")
    end = attempt.take(Finished("t1", "stop", 3, 1, 2))
    assert isinstance(end, End)
    assert (end.index, end.finish_reason) == (2, "stop")
    assert end.usage == usage_of(3, 1, 2, 0)
    assert attempt.text == "One two"
    items = [attempt.note(entry) for entry in (START, end)]
    assert [(item.attempt, item.n, item.nonce) for item in items] == [(1, 1, "n"), (1, 2, "n")]
    assert attempt.items[1:] == items


def test_timing(attempt: Attempt) -> None:
    """Times are in ms; the first token's stands once there is one."""
    before = attempt.timing()
    assert before["queued_ms"] == 12.346
    assert before["first_token_ms"] is None
    attempt.take(Tokens("t1", 0, [7], "One "))
    after = attempt.timing()
    assert after["first_token_ms"] is not None
    assert after["total_ms"] is not None
    assert 0 <= after["first_token_ms"] <= after["total_ms"]
    assert Attempt("t1", claim(queued_ms=None), "m").timing()["queued_ms"] is None


def test_reasoning_is_no_part_of_the_answer(attempt: Attempt) -> None:
    """What the model thinks keeps its kind in the journal, has a text of its own, and counts as reasoning tokens."""
    entry = attempt.take(Tokens("t1", 0, [7, 8], "hm ", kind="reasoning"))
    assert entry == Token(attempt=1, index=0, ids=[7, 8], text="hm ", kind="reasoning")
    attempt.take(Tokens("t1", 2, [9], "Yes"))
    assert (attempt.reasoning, attempt.text) == ("hm ", "Yes")
    assert attempt.usage == usage_of(0, 0, 3, 2)


def test_a_first_attempt_has_nothing_to_resume(attempt: Attempt) -> None:
    """The engine begins at the beginning."""
    assert attempt.resume() is None
    assert not attempt.has_resumed


def test_a_second_attempt_goes_on(second: Attempt) -> None:
    """The engine is told what the journal holds, and the answer is that and what comes after it."""
    assert second.resume() == Resume(
        ids=[7, 8], characters={"reasoning": 4, "content": 4, "tool_call": 0}, revision="r1", prompt_hash="h"
    )
    second.take(Tokens("t1", 2, [9], "three"))
    end = second.take(Finished("t1", "length", 3, 0, 3))
    assert isinstance(end, End)
    assert (end.attempt, end.index) == (2, 3)
    assert (second.reasoning, second.text) == ("One ", "two three")
    assert end.usage["completion_tokens_details"] == {"reasoning_tokens": 1}
    assert second.ids == [7, 8, 9]
    assert second.has_resumed
    assert second.logprobs == [{"id": 8}]


def test_the_first_attempts_rendering_goes_on(second: Attempt) -> None:
    """A later attempt gets what the first one's template wrote, and does not write it down again."""
    first = replace(START, rendering="R")
    attempt = Attempt("t1", claim(2, [Claim(attempt=1, worker="b#1"), first]), "m")
    resume = attempt.resume()
    assert resume is not None
    assert resume.rendering == "R"
    start = attempt.take(Started("t1", 3, 1, "h", "R", "r1"))
    assert isinstance(start, Start)
    assert start.rendering == ""


def test_a_request_that_was_claimed_and_never_started() -> None:
    """A second attempt at a request that no engine had seen begins at the beginning."""
    assert Attempt("t1", claim(2, [Claim(attempt=1, worker="b#1")]), "m").resume() is None


@pytest.mark.parametrize(
    ("entries", "ids", "text"),
    [
        ([START, said(0, 7), said(2, 9), said(3, 10)], [7], "7 "),
        ([START, said(0, 7), said(2, 9), Claim(attempt=2, worker="c#1"), said(1, 8), said(2, 9)], [7, 8, 9], "7 8 9 "),
        ([START, said(1, 8)], [], ""),
        ([said(0, 7), said(1, 8)], [], ""),
        ([START, said(0, 7), Token(attempt=1, index=1, ids=None, text="x")], [7], "7 "),  # type: ignore[arg-type]
    ],
    ids=["hole", "filled by a later attempt", "no beginning", "no start", "unsound"],
)
def test_it_never_goes_on_from_a_hole(entries: list[Entry], ids: list[int], text: str) -> None:
    """Of a journal that lacks something only what stands before the hole counts; the rest is computed again."""
    attempt = Attempt("t1", claim(3, [Claim(attempt=1, worker="b#1"), *entries]), "m")
    resume = attempt.resume()
    assert (resume.ids if resume else [], resume.characters["content"] if resume else 0) == (ids, len(text))
    assert (attempt.ids, attempt.text) == (ids, text)


def test_logprobs_have_openai_s_shape(attempt: Attempt) -> None:
    """Each token's log-probability is an object with its alternatives, in the entry and in the answer."""
    entry = attempt.take(
        Tokens("t1", 0, [7], "One", [TokenLogprob(7, "One", -0.1, ((7, "One", -0.1), (9, "Two", -2.5)))])
    )
    assert isinstance(entry, Token)
    expected = {
        "id": 7,
        "token": "One",
        "logprob": -0.1,
        "top_logprobs": [{"id": 7, "token": "One", "logprob": -0.1}, {"id": 9, "token": "Two", "logprob": -2.5}],
    }
    assert entry.logprobs == attempt.logprobs == [expected]


@pytest.mark.parametrize(
    ("reason", "finish_reason", "expected"),
    [
        (None, "stop", End),
        ("cancelled", "cancelled", End),
        ("soft_time_limit", "deadline", End),
        ("time_limit", "deadline", Error),
        ("requeue", "cancelled", Release),
    ],
)
def test_why_it_was_stopped_says_how_it_ends(
    attempt: Attempt, reason: StopReason | None, finish_reason: Any, expected: type[Entry]
) -> None:
    """A cancel and a soft limit end with what there is, a hard limit with an error, a hand-back with a release."""
    attempt.stop_reason, attempt.limit_s = reason, 1.5
    attempt.take(Tokens("t1", 0, [7], "One "))
    entry = attempt.take(Finished("t1", finish_reason, 3, 0, 1))
    assert type(entry) is expected
    if isinstance(entry, End):
        assert (entry.finish_reason, entry.index) == (finish_reason, 1)
    if isinstance(entry, Error):
        assert entry == Error(attempt=1, code="deadline_exceeded", message="the time limit of 1.5 s passed")
    if isinstance(entry, Release):
        assert not entry.crashed


def test_a_failure_knows_whether_to_try_again(attempt: Attempt) -> None:
    """The error's class says whether the same request may succeed later."""
    assert attempt.take(Failed("t1", "context_length_exceeded", "too long")) == Error(
        attempt=1, code="context_length_exceeded", message="too long", retryable=False
    )
    assert attempt.error("engine_failed", "died").retryable


def test_an_end_from_outside_counts_what_there_is(attempt: Attempt) -> None:
    """A request that is ended without its engine has the usage of what was generated."""
    attempt.take(Started("t1", 3, 1, "h"))
    attempt.take(Tokens("t1", 0, [7, 8], "One two"))
    end = attempt.end("cancelled")
    assert end.index == 2
    assert end.usage == usage_of(3, 1, 2, 0)


def test_the_first_outcome_stands(attempt: Attempt) -> None:
    """Whoever waits gets the first outcome that the journal has, and no later one."""
    assert attempt.outcome is None
    outcomes: list[Any] = []
    waiter = threading.Thread(target=lambda: outcomes.append(attempt.wait()))
    waiter.start()
    end = attempt.end("stop")
    attempt.finish(end)
    attempt.finish(Fenced())
    waiter.join(30)
    assert outcomes == [end]
    assert attempt.outcome is end
