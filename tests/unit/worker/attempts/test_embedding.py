"""What becomes of an attempt at vectors, without an engine."""

from __future__ import annotations

import struct

from tasks.client.request.embedding import EMBEDDING
from tasks.journal.claim_answer import ClaimAnswer
from tasks.messages.embedding import Embedded
from tasks.messages.engine import Finished, Started
from tasks.messages.journal import Claim, End, Error, Release
from tasks.worker.attempts.embedding import EmbedAttempt, Embedding
from worker_config.model_entry import ModelEntry

VECTORS = Embedded("t1", 4, 2, struct.pack("<4f", 0.1, -2.0, 3.5, 1e-7))
ENTRY = ModelEntry(name="m", kind="fake", source="1", prompts={"query": "q: "})


def attempt() -> EmbedAttempt:
    entry = Claim(attempt=1, worker="a#1")
    return EmbedAttempt(
        "t1",
        ClaimAnswer(
            kind="claimed", attempt=1, crashes=0, entries=[entry], items=[], owner="a#1", nonce="", queued_ms=0.0
        ),
        "m",
    )


def test_numbers_give_each_32_bit_float_back() -> None:
    """In nine digits, where the double of a float has seventeen, and the answer names its inputs by their places."""
    made, work = attempt(), Embedding()
    made.take(Started("t1", 4, 0, ""))
    end = made.take(VECTORS)
    assert isinstance(end, End)
    assert end.usage == {"prompt_tokens": 4, "total_tokens": 4}
    given = EMBEDDING.parse(None, {"input": ["a", "b"]}, {})
    answer = work.answer(made, given, end, "a")
    numbers = [number for item in answer["data"] for number in item["embedding"]]
    assert struct.pack("<4f", *numbers) == VECTORS.vectors
    assert max(len(repr(number)) for number in numbers) <= len("-0.123456789e-07")
    assert [item["index"] for item in answer["data"]] == [0, 1]
    assert repr(answer) == "<2 vectors of m>"


def test_the_catalogues_prompt_goes_to_the_engine() -> None:
    """By the type that the request names; a type that the catalogue does not have is left to the model's files."""
    sent = {
        name: Embedding().message(attempt(), EMBEDDING.parse(None, {"input": "a", "input_type": name}, {}), ENTRY, None)
        for name in ("query", "document")
    }
    assert (sent["query"].prompt, sent["document"].prompt) == ("q: ", None)
    assert sent["document"].input_type == "document"


def test_a_deadline_is_an_error_and_a_cancel_is_an_end() -> None:
    """A part of the vectors is of no use to anybody."""
    late, cancelled = (attempt().take(Finished("t1", reason, 4, 0, 0)) for reason in ("deadline", "cancelled"))
    assert isinstance(late, Error)
    assert late.code == "deadline_exceeded"
    assert isinstance(cancelled, End)


def test_what_has_ended_before_is_computed_again_and_written_nowhere() -> None:
    """Its outcome is taken as it comes; an engine that dies then ends it, since no journal counts that."""
    end = End(attempt=1, index=0, finish_reason="stop", usage={})
    again, crashed, failed = attempt(), attempt(), attempt()
    for recorded in (again, crashed):
        recorded.found(end)
        assert (recorded.is_recorded, recorded.outcome) == (True, None)
    again.settle(again.take(VECTORS))
    assert isinstance(again.outcome, End)
    crashed.settle(Release(attempt=1, crashed=True))
    assert isinstance(crashed.outcome, Error)
    assert (crashed.outcome.code, crashed.outcome.retryable) == ("engine_failed", True)
    error = Error(attempt=1, code="invalid_request", message="no")
    failed.found(error)
    assert (failed.is_recorded, failed.outcome) == (False, error)
