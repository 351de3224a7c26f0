"""Claims that are written as messages are fetched."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from tasks.broker.channel.holding import NO_CLAIMS
from tasks.journal.writer import Journal
from tasks.server.connection import connect
from tasks.worker.attempts.claims import MOST, Claims

if TYPE_CHECKING:
    from tasks.worker.engines.engine import Engine


class FakeEngine:
    def __init__(self) -> None:
        self.serves = True


@pytest.fixture
def claims() -> Claims:
    return Claims(Journal(connect("redis://localhost:1")), "a@here#1", "celery")


def test_only_what_an_engine_serves_is_claimed(claims: Claims) -> None:
    """A model by the name that requests have for it, while its engine serves; never in the queue whose requests are sent on."""
    assert claims.terms("tier") == NO_CLAIMS
    engine = FakeEngine()
    claims.serve("", cast("Engine", engine))
    claims.serve("tiny", cast("Engine", engine))
    terms = claims.terms("tier")
    assert (terms[0], terms[-1]) == ("a@here#1", "\n\ntiny\n")
    assert len(terms) == len(NO_CLAIMS)
    assert claims.terms("celery") == NO_CLAIMS
    engine.serves = False
    assert claims.terms("tier") == NO_CLAIMS


def test_a_claim_is_taken_once_by_whoever_has_its_message(claims: Claims) -> None:
    """It is the request's first attempt, with the nonce that the script was told."""
    claims.serve("tiny", cast("Engine", FakeEngine()))
    nonce = claims.terms("tier")[1]
    claims.note("t1", "tag", b"{}", b"1.5")
    assert claims.nonce("t1") == nonce
    assert claims.take("t1", "another") is None
    found = claims.take("t1", "tag")
    assert found is not None
    assert (found.kind, found.attempt, found.nonce, found.queued_ms) == ("claimed", 1, nonce, 1.5)
    assert claims.take("t1", "tag") is None
    assert claims.nonce("t1") == ""


def test_an_attempt_of_another_delivery_voids_a_claim(claims: Claims) -> None:
    """Whoever has that message asks the journal anew."""
    claims.note("t1", "tag", b"{}", b"")
    claims.note("t2", "tag", b"{}", b"")
    claims.forget("t1")
    claims.forget("t1")
    assert claims.take("t1", "tag") is None
    assert claims.take("t2", "tag") is not None


def test_what_nobody_takes_is_forgotten(claims: Claims) -> None:
    """The oldest first."""
    for number in range(MOST + 1):
        claims.note(str(number), "tag", b"{}", b"")
    assert claims.take("0", "tag") is None
    assert claims.take("1", "tag") is not None
