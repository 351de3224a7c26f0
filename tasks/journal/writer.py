"""A worker's side of the journals: claim, append, release, end. Every call is one round trip."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from tasks.journal import scripts
from tasks.messages.answer import usage_of
from tasks.messages.journal import Claim, End, Entry, Error, Release, Start, Token, decode, encode
from tasks.server import keys
from tasks.server.connection import translated

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from redis import Redis

    from tasks.server.script import Evaluator

Closes: TypeAlias = Literal["", "attempt", "journal"]
Status: TypeAlias = Literal["ok", "fenced", "gone"]
EndAnswer: TypeAlias = Literal["ended", "already", "busy"]
Answer: TypeAlias = Literal["claimed", "cancelled", "busy", "ended"]

SEALED = str(2**64 - 1)
CANCEL_TTL_S = 86_400
_RUNNING, _QUEUED = b"running", b"queued"
_END_TRIES = 20
_STATUS: dict[int, Status] = {ord("o"): "ok", ord("f"): "fenced", ord("g"): "gone"}


@dataclass(slots=True, frozen=True)
class Append:
    """One entry to append, as ``<attempt>-<n>``.

    ``payload`` is the entry's JSON. ``closes`` says that nothing may follow: in this attempt (a release), or in the
    journal (an end or error). With the ``nonce`` of its claim an item is fenced even where Redis lost the journal and
    another worker claimed the same attempt anew.
    """

    task_id: str
    attempt: int
    n: int
    payload: str
    closes: Closes = ""
    nonce: str = ""

    @classmethod
    def of(cls, task_id: str, n: int, entry: Entry, nonce: str = "") -> Append:
        """The entry as an item; its attempt and what it closes follow from it."""
        closes: Closes = (
            "journal" if isinstance(entry, End | Error) else "attempt" if isinstance(entry, Release) else ""
        )
        return cls(task_id, entry.attempt, n, encode(entry), closes, nonce)


@dataclass(slots=True, frozen=True, kw_only=True)
class ClaimAnswer:
    """What a claim found.

    - ``claimed``: the request is this worker's, as ``attempt``; ``entries`` are those of earlier attempts.
    - ``cancelled``: the same, but it was cancelled before: append an ``end`` with ``finish_reason`` ``cancelled``, do
      not compute. The claim is written all the same, so that the end and its usage are this worker's to write.
    - ``busy``: its owner is alive and has not released it. ``owner`` may be this worker itself.
    - ``ended``: the last of ``entries`` is its end or error.

    ``items`` are the same entries and this claim, as :meth:`Journal.rewrite` wants them; empty unless this worker holds
    it. ``crashes`` counts engines and workers that died with it in their batch. ``queued_ms`` is the time from
    submission to this claim by Redis's clock; ``None`` where the ledger does not say.
    """

    kind: Answer
    attempt: int
    crashes: int
    entries: list[Entry]
    items: list[Append]
    owner: str
    nonce: str
    queued_ms: float | None


class Journal:
    """Writes journals. Safe to share between threads, as its client is.

    Args:
        client: answers in bytes (:func:`tasks.server.connection.connect`).
        evaluator: runs the scripts; the client, where there is none.
        ttl_s: how long a journal is kept after its end.
        open_ttl_s: how long one is kept after its last claim.

    Every method raises :class:`tasks.errors.BrokerUnavailable` when Redis cannot be reached or refuses for now, and
    :class:`tasks.errors.JournalFailed` for what waiting does not mend. Each may be called again with the same arguments
    after a lost reply.
    """

    def __init__(
        self, client: Redis, evaluator: Evaluator | None = None, *, ttl_s: float = 3_600, open_ttl_s: float = 86_400
    ) -> None:
        self._client = client
        self._evaluator = evaluator or client
        self._ttl_ms = int(ttl_s * 1000)
        self._open_ttl_ms = int(open_ttl_s * 1000)

    def claim(self, task_id: str, identity: str, nonce: str | None = None) -> ClaimAnswer:
        """Take the request for ``identity`` (``node#boot``), or learn why not.

        A caller that tries again after :class:`BrokerUnavailable` passes the same ``nonce``: else it finds its own
        claim, busy.
        """
        nonce = nonce or new_nonce()
        with translated(f"claim of {task_id}"):
            kind, attempt, crashes, queued_ms, owner, flat = scripts.CLAIM(
                self._evaluator,
                (keys.stream(task_id), keys.cancel(task_id), keys.LEDGER),
                (task_id, identity, nonce, keys.alive(""), self._open_ttl_ms),
            )
        answer: Answer = kind.decode()
        waited = float(queued_ms) if queued_ms else None
        items: list[Append] = []
        if answer in {"claimed", "cancelled"}:
            claim = Claim(attempt=attempt, worker=identity, crashes=crashes, nonce=nonce, queued_ms=waited)
            items = [
                _as_written(task_id, entry_id, payload) for entry_id, payload in zip(flat[::2], flat[1::2], strict=True)
            ]
            items.append(Append.of(task_id, 0, claim))
        return ClaimAnswer(
            kind=answer,
            attempt=attempt,
            crashes=crashes,
            entries=_decoded(flat[1::2]),
            items=items,
            owner=owner.decode(),
            nonce=nonce,
            queued_ms=waited,
        )

    def append(self, batch: Sequence[Append]) -> list[Status]:
        """Append and publish, all in one call; one status for each item, and no item fails another.

        ``fenced``: another worker claimed the request, or it has ended. ``gone``: Redis has no such journal any more.
        """
        if not batch:
            return []
        args: list[str | int] = [self._ttl_ms]
        for item in batch:
            args += (f"{item.attempt}-{item.n}", item.payload, item.closes, item.nonce)
        with translated(f"append to {len(batch)} journals"):
            reply: bytes = scripts.APPEND(self._evaluator, [keys.stream(item.task_id) for item in batch], args)
        return [_STATUS[letter] for letter in reply]

    def release(self, task_id: str, attempt: int, n: int, *, crashed: bool, nonce: str = "") -> Status:
        """Give the request back, so that the next claim need not wait for this worker's death."""
        return self.append([Append.of(task_id, n, Release(attempt=attempt, crashed=crashed), nonce)])[0]

    def rewrite(self, task_id: str, entries: Sequence[Append]) -> bool:
        """Write a lost journal anew: the claim's ``items``, then all that was appended since.

        ``False`` if Redis has a journal: append again, and the answer says whose it is.
        """
        last = entries[-1]
        sealed = {"": "", "attempt": f"{last.attempt}-{SEALED}", "journal": f"{SEALED}-{SEALED}"}[last.closes]
        args: list[str | int] = [self._ttl_ms if last.closes == "journal" else self._open_ttl_ms, sealed]
        for item in entries:
            args += (f"{item.attempt}-{item.n}", item.payload)
        with translated(f"rewriting the journal of {task_id}"):
            return bool(scripts.REWRITE(self._evaluator, (keys.stream(task_id),), args))

    def mark_cancelled(self, task_id: str, *, running: bool = True) -> None:
        """Leave a mark that every later claim reports, for a day: a worker started later heard no broadcast.

        ``running`` says that it is meant for a request that runs already, too (Celery's ``terminate``).
        """
        mark_cancelled(self._client, task_id, running=running)

    def cancelled(self, task_ids: Iterable[str]) -> set[str]:
        """Those of these running requests that are to be aborted."""
        asked = list(task_ids)
        if not asked:
            return set()
        with translated(f"looking for cancels of {len(asked)} requests"):
            marks: Any = self._client.mget([keys.cancel(task_id) for task_id in asked])
        return {task_id for task_id, mark in zip(asked, marks, strict=True) if mark == _RUNNING}

    def read(self, task_id: str) -> list[Entry]:
        """What the journal says; empty where Redis has none."""
        return _decoded(payload for _, payload in self._stored(task_id))

    def end_unclaimed(self, task_id: str, entry: End | Error) -> EndAnswer:
        """End a request that no worker holds: revoked while queued, expired, rejected, or its result is already final.

        The entry's ``attempt`` is set here. So are ``index`` and ``usage`` of an ``End``, where an earlier attempt got
        as far as tokens. ``busy``: its owner is alive and has not released it, and will end it. ``already``: it had
        ended.
        """
        for _ in range(_END_TRIES):
            stored = self._stored(task_id)
            entries = _decoded(payload for _, payload in stored)
            if entries and isinstance(entries[-1], End | Error):
                return "already"
            last_id = stored[-1][0] if stored else ""
            item = Append.of(task_id, 1, _after(entries, int(last_id.partition("-")[0] or 0) + 1, entry))
            with translated(f"end of {task_id}"):
                answer: bytes = scripts.END(
                    self._evaluator,
                    (keys.stream(task_id), keys.alive(_owner(entries)), keys.LEDGER),
                    (task_id, last_id, f"{item.attempt}-{item.n}", item.payload, self._ttl_ms),
                )
            if answer != b"moved":
                return "busy" if answer == b"busy" else "ended"
        # Somebody writes to it all the time, so somebody holds it.
        return "busy"

    def _stored(self, task_id: str) -> list[tuple[str, bytes]]:
        with translated(f"reading the journal of {task_id}"):
            found: Any = self._client.xrange(keys.stream(task_id))
        return [(entry_id.decode(), fields.get(b"d", b"")) for entry_id, fields in found]


def new_nonce() -> str:
    """Sixteen hex digits that no other claim has."""
    return secrets.token_hex(8)


def mark_cancelled(client: Redis, task_id: str, *, running: bool) -> None:
    """Mark the request as cancelled; see :meth:`Journal.mark_cancelled`."""
    with translated(f"cancel of {task_id}"):
        # The weaker mark never takes the stronger one's place.
        client.set(keys.cancel(task_id), _RUNNING if running else _QUEUED, ex=CANCEL_TTL_S, nx=not running)


def emitted(entries: Iterable[Entry]) -> int:
    """The index after the last token that these entries hold."""
    return max((entry.index + len(entry.ids) for entry in entries if isinstance(entry, Token)), default=0)


def _as_written(task_id: str, entry_id: bytes, payload: bytes) -> Append:
    attempt, n = map(int, entry_id.split(b"-"))
    return Append(task_id, attempt, n, payload.decode(errors="replace"))


def _decoded(payloads: Iterable[bytes]) -> list[Entry]:
    return [entry for payload in payloads if (entry := decode(payload)) is not None]


def _owner(entries: Sequence[Entry]) -> str:
    """Whose lease stands between these entries and an end; empty where the last attempt was released."""
    if not entries or isinstance(entries[-1], Release):
        return ""
    return next((entry.worker for entry in reversed(entries) if isinstance(entry, Claim)), "")


def _after(entries: Sequence[Entry], attempt: int, entry: End | Error) -> End | Error:
    """The entry as it stands after these: numbered, and counting what they hold."""
    if isinstance(entry, Error):
        return replace(entry, attempt=attempt)
    prompt_tokens = next((each.prompt_tokens for each in entries if isinstance(each, Start)), 0)
    index = emitted(entries)
    reasoning_tokens = sum(len(each.ids) for each in entries if isinstance(each, Token) and each.kind == "reasoning")
    usage = usage_of(prompt_tokens, 0, index, reasoning_tokens) | entry.usage
    return replace(entry, attempt=attempt, index=index, usage=usage)
