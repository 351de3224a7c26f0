"""Claims that were written as messages were fetched, until the requests' threads take them.

A new request whose model is loaded is claimed by the script that fetches its message, which saves a round trip. All others are
claimed by their threads: those that wait for a model, so that a wait for a load holds no claim, and those with a journal already.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from tasks.broker.channel.holding import NO_CLAIMS
from tasks.journal.claim_answer import ClaimAnswer
from tasks.journal.items import Append
from tasks.journal.writer import new_nonce

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.journal.writer import Journal
    from tasks.worker.engines.engine import Engine

#: The most claims that are kept: nobody takes the claim of a message that goes no further.
MOST = 2_000


class _Claim(NamedTuple):
    delivery: str
    answer: ClaimAnswer


class Claims:
    """Every thread may call it; messages are fetched on one.

    Args:
        journal: knows how claims are written.
        identity: this worker's ``node#boot``.
        forwarded: the queue whose requests are sent on, and so never claimed before that.
    """

    def __init__(self, journal: Journal, identity: str, forwarded: str) -> None:
        self._journal = journal
        self._identity = identity
        self._forwarded = forwarded
        self._serving: dict[str, Engine] = {}
        self._nonce = ""
        self._claims: OrderedDict[str, _Claim] = OrderedDict()
        self._lock = threading.Lock()

    def serve(self, model: str, engine: Engine) -> None:
        """Requests that name this model, or none where it is empty, are run by this engine."""
        self._serving[model] = engine

    def terms(self, queue: str) -> Sequence[str | int]:
        """Return the arguments of the script that fetches: the owner of new claims, and the models that they may be for."""
        names = [name for name, engine in list(self._serving.items()) if engine.serves]
        if not names or queue == self._forwarded:
            return NO_CLAIMS
        self._nonce = new_nonce()
        return *self._journal.claim_terms(self._identity, self._nonce), "\n" + "\n".join(names) + "\n"

    def note(self, task_id: str, delivery: str, payload: bytes, queued_ms: bytes) -> None:
        """The script has claimed this request, whose message has this delivery tag."""
        answer = ClaimAnswer(
            kind="claimed",
            attempt=1,
            crashes=0,
            entries=[],
            items=[Append(task_id, 1, 0, payload.decode())],
            owner=self._identity,
            nonce=self._nonce,
            queued_ms=float(queued_ms) if queued_ms else None,
        )
        with self._lock:
            self._claims[task_id] = _Claim(delivery, answer)
            if len(self._claims) > MOST:
                self._claims.popitem(last=False)

    def take(self, task_id: str, delivery: str) -> ClaimAnswer | None:
        """The claim for the message with this delivery tag, once."""
        with self._lock:
            claim = self._claims.get(task_id)
            if claim is None or claim.delivery != delivery:
                return None
            del self._claims[task_id]
            return claim.answer

    def forget(self, task_id: str) -> None:
        """A delivery of this request has ended, whichever it was: its journal has gone on, and an earlier claim is void."""
        with self._lock:
            self._claims.pop(task_id, None)

    def nonce(self, task_id: str) -> str:
        """Return the nonce of a claim that nobody has taken; empty where there is none."""
        with self._lock:
            claim = self._claims.get(task_id)
            return "" if claim is None else claim.answer.nonce
