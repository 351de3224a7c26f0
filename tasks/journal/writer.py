"""A worker's side of the journals: claim, append, release, end. Every call is one round trip."""

from __future__ import annotations

import secrets
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from tasks.journal import scripts
from tasks.journal.claim_answer import Answer, ClaimAnswer
from tasks.journal.ending import after, holder
from tasks.journal.items import Append, Asks, Held, order, pages
from tasks.messages.journal import End, Entry, Error, Release, decode
from tasks.server import keys
from tasks.server.connection import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from redis import Redis

    from tasks.server.script import Evaluator

Status: TypeAlias = Literal["ok", "heard", "fenced", "gone", "behind"]
EndAnswer: TypeAlias = Literal["ended", "already", "busy"]

SEALED = str(2**64 - 1)
CANCEL_TTL_S = 86_400
#: How long a journal is kept after its last claim.
OPEN_TTL_MS = 86_400_000
#: Entries, or journals, in one reading: Redis does nothing else meanwhile.
PAGE = 500
_RUNNING, _QUEUED = b"running", b"queued"
_END_TRIES = 20
_ASK = "?"
_STATUS: dict[int, Status] = {ord(word[0]): word for word in get_args(Status)}


class Journal:
    """Writes journals. Safe to share between threads, as its client is.

    Args:
        client: answers in bytes (:func:`tasks.server.connection.connect`).
        evaluator: runs the scripts; the client, where there is none.
        ttl_s: how long a journal is kept after its end.

    Every method raises :class:`tasks.errors.BrokerUnavailable` when Redis cannot be reached or refuses for now, and
    :class:`tasks.errors.JournalFailed` for what waiting does not fix. Each may be called again with the same arguments
    after a lost reply.
    """

    def __init__(self, client: Redis, evaluator: Evaluator | None = None, *, ttl_s: float = 3_600) -> None:
        self._client = client
        self._evaluator = evaluator or client
        self._ttl_ms = int(ttl_s * 1000)
        self._open_ttl_ms = OPEN_TTL_MS
        self._channel = keys.channel_prefix(int(client.get_connection_kwargs().get("db") or 0))

    def claim(
        self, task_id: str, identity: str, nonce: str | None = None, *, delivery: str = "", asks: Asks | None = None
    ) -> ClaimAnswer:
        """Take the request for ``identity`` (``node#boot``), or learn why not.

        A caller that tries again after :class:`BrokerUnavailable` passes the same ``nonce``, else it claims twice. A claim
        of ``identity`` itself that is open is taken over: the caller knows that none of its own runs.

        Args:
            task_id: the request.
            identity: who claims it.
            nonce: sixteen hex digits that no other claim has.
            delivery: the tag of the message that the claimant holds. The claim is void without that message.
            asks: what the message asks for.
        """
        nonce = nonce or new_nonce()
        with translated(f"claim of {task_id}"):
            kind, attempt, crashes, queued_ms, owner, payload = scripts.CLAIM(
                self._evaluator,
                (keys.stream(task_id), keys.cancel(task_id), keys.LEDGER, keys.request(task_id)),
                (
                    *(task_id, identity, nonce, keys.alive(""), self._open_ttl_ms),
                    *(delivery, keys.unacked(""), self._channel, *(asks or ("", 1))),
                ),
            )
        answer: Answer = kind.decode()
        holds = answer in {"claimed", "cancelled"}
        stored: list[tuple[str, bytes]] = []
        if answer == "ended" or (holds and attempt > 1):  # before a first attempt there is nothing
            stored = self._stored(task_id, before=f"{attempt}-0" if holds else "")
        items = [Append.as_written(task_id, entry_id, text) for entry_id, text in stored] if holds else []
        return ClaimAnswer(
            kind=answer,
            attempt=attempt,
            crashes=crashes,
            entries=_decoded(text for _, text in stored),
            items=[*items, Append(task_id, attempt, 0, payload.decode())] if holds else [],
            owner=owner.decode(),
            nonce=nonce,
            queued_ms=float(queued_ms) if queued_ms else None,
        )

    def claim_terms(self, identity: str, nonce: str) -> tuple[str | int, ...]:
        """What a script is told that claims new requests for ``identity`` beside other things (``claiming.lua``)."""
        prefixes = (keys.stream(""), keys.cancel(""), keys.request(""), self._channel)
        return identity, nonce, self._open_ttl_ms, *prefixes

    def is_other(self, task_id: str, asks: Asks) -> bool:
        """Whether another request, with other parameters, has this id."""
        with translated(f"looking for {task_id}"):
            known: Any = self._client.get(keys.request(task_id))
        return known is not None and known.decode() != asks.fingerprint

    def append(self, batch: Sequence[Append]) -> list[Status]:
        """Append and publish, in few calls; one status for each item, and no item fails another.

        ``heard``: it is written, and a reader listened. ``fenced``: another worker claimed the request, or it has ended.
        ``gone``: Redis has no such journal any more. ``behind``: Redis has lost its end: :meth:`fill` writes what is missing.
        """
        return [status for page in pages(batch) for status in self._append(page)]

    def _append(self, batch: Sequence[Append]) -> list[Status]:
        args: list[str | int] = [self._ttl_ms, self._channel]
        for item in batch:
            args += (item.entry_id, item.payload, item.closes, item.nonce)
        with translated(f"append to {len(batch)} journals"):
            reply: bytes = scripts.APPEND(self._evaluator, [keys.stream(item.task_id) for item in batch], args)
        return [_STATUS[letter] for letter in reply]

    def release(self, task_id: str, attempt: int, n: int, *, crashed: bool, nonce: str = "") -> Status:
        """Give the request back, so that the next claim need not wait for this worker's death."""
        return self.append([Append.of(task_id, n, Release(attempt=attempt, crashed=crashed), nonce)])[0]

    def fill(
        self,
        task_id: str,
        items: Sequence[Append],
        identity: str = "",
        held: Callable[[], Held | None] = lambda: None,
    ) -> bool:
        """Write what Redis has lost of a journal: it came back older than it was, or without its data.

        ``False`` if what Redis has is another worker's, which goes on.

        Args:
            task_id: the request.
            items: the whole journal: the claim's ``items``, then all that was appended since.
            identity: its owner.
            held: says which message the owner holds; Redis may have lost it too.
        """
        ids = [(item.attempt, item.n) for item in items]
        last_id, digest = self._write(task_id, (_ASK, ""), [], identity, None)
        while True:
            begin = 0
            if last_id:
                place = bisect_left(ids, order(last_id))
                if place == len(ids) or items[place].entry_id != last_id or items[place].digest != digest:
                    return False
                begin = place + 1
            page = next(pages(items[begin:]), [])
            if not page:
                return True
            last_id, digest = self._write(task_id, (last_id, digest), page, identity, held())

    def _write(
        self, task_id: str, behind: tuple[str, str], page: Sequence[Append], identity: str, held: Held | None
    ) -> tuple[str, str]:
        """Write a page of a journal behind this entry, unless another is the last; the id and digest of that one."""
        last = page[-1] if page else None
        closes = last.closes if last is not None else ""
        seal = {"": "", "attempt": f"{last and last.attempt}-{SEALED}", "journal": f"{SEALED}-{SEALED}"}[closes]
        args: list[str | int] = [task_id, self._ttl_ms if closes == "journal" else self._open_ttl_ms, self._channel]
        args += (*behind, seal, *(held or ("", "")), identity)
        for item in page:
            args += (item.entry_id, item.payload)
        holds = (keys.unacked(identity), keys.unacked_index(identity), keys.OWNERS)
        with translated(f"filling the journal of {task_id}"):
            last_id, digest = scripts.FILL(self._evaluator, (keys.stream(task_id), keys.LEDGER, *holds), args)
        return last_id.decode(), digest.decode()

    def last_ids(self, task_ids: Sequence[str]) -> list[str]:
        """The ids of the last entries of these journals; empty for those that are not there."""
        found: list[str] = []
        for start in range(0, len(task_ids), PAGE):
            with translated("looking for journals"):
                pipeline = self._client.pipeline(transaction=False)
                for task_id in task_ids[start : start + PAGE]:
                    pipeline.xrevrange(keys.stream(task_id), count=1)
                replies = pipeline.execute()
            found += [reply[0][0].decode() if reply else "" for reply in replies]
        return found

    def collected(self, task_ids: Sequence[str]) -> set[str]:
        """Those of these requests whose answers somebody has for good, and whose journals were deleted for that reason."""
        found: set[str] = set()
        for start in range(0, len(task_ids), PAGE):
            page = task_ids[start : start + PAGE]
            with translated("looking for what was collected"):
                marks: Any = self._client.mget([keys.collected(task_id) for task_id in page])
            found.update(task_id for task_id, mark in zip(page, marks, strict=True) if mark is not None)
        return found

    def mark_cancelled(self, task_id: str, *, running: bool = True) -> None:
        """Leave a mark that every later claim reports, for a day: a worker started later heard no broadcast.

        ``running`` says that it is meant for a request that runs already, too (Celery's ``terminate``).
        """
        mark_cancelled(self._client, task_id, running=running)

    def cancelled(self, task_ids: Iterable[str]) -> set[str]:
        """Those of these running requests that are to be aborted."""
        ids = list(task_ids)
        if not ids:
            return set()
        with translated(f"looking for cancels of {len(ids)} requests"):
            marks: Any = self._client.mget([keys.cancel(task_id) for task_id in ids])
        return {task_id for task_id, mark in zip(ids, marks, strict=True) if mark == _RUNNING}

    def read(self, task_id: str) -> list[Entry]:
        """What the journal says; empty where Redis has none."""
        return _decoded(payload for _, payload in self._stored(task_id))

    def end_unclaimed(self, task_id: str, entry: End | Error, nonce: str = "") -> EndAnswer:
        """End a request that no worker holds: revoked while queued, expired, rejected, or its result is already final.

        A claim of this ``nonce`` is the caller's, who does not run it.

        The entry's ``attempt`` is set here. So are ``index`` and ``usage`` of an ``End``, where an earlier attempt got
        as far as tokens. ``busy``: its owner is alive, holds its message and has not released it, and will end it.
        ``already``: it had ended.
        """
        for _ in range(_END_TRIES):
            stored = self._stored(task_id)
            entries = _decoded(payload for _, payload in stored)
            if entries and isinstance(entries[-1], End | Error):
                return "already"
            last_id = stored[-1][0] if stored else ""
            item = Append.of(task_id, 1, after(entries, int(last_id.partition("-")[0] or 0) + 1, entry))
            owner, delivery = holder(entries, nonce)
            with translated(f"end of {task_id}"):
                answer: bytes = scripts.END(
                    self._evaluator,
                    (keys.stream(task_id), keys.alive(owner), keys.LEDGER, keys.unacked(owner)),
                    (task_id, last_id, item.entry_id, item.payload, self._ttl_ms, delivery, self._channel),
                )
            if answer != b"moved":
                return "busy" if answer == b"busy" else "ended"
        # Somebody writes to it all the time, so somebody holds it.
        return "busy"

    def _stored(self, task_id: str, before: str = "") -> list[tuple[str, bytes]]:
        """A journal's entries, as ids and payloads, up to the id ``before``; read a page at a time."""
        found: list[tuple[str, bytes]] = []
        begin, end = "-", f"({before}" if before else "+"
        with translated(f"reading the journal of {task_id}"):
            while True:
                page: Any = self._client.xrange(keys.stream(task_id), begin, end, count=PAGE)
                found += [(entry_id.decode(), fields.get(b"d", b"")) for entry_id, fields in page]
                if len(page) < PAGE:
                    return found
                begin = f"({found[-1][0]}"


def new_nonce() -> str:
    """Sixteen hex digits that no other claim has."""
    return secrets.token_hex(8)


def mark_cancelled(client: Redis, task_id: str, *, running: bool) -> None:
    """Mark the request as cancelled; see :meth:`Journal.mark_cancelled`."""
    with translated(f"cancel of {task_id}"):
        # The weaker mark never takes the stronger one's place.
        client.set(keys.cancel(task_id), _RUNNING if running else _QUEUED, ex=CANCEL_TTL_S, nx=not running)


def _decoded(payloads: Iterable[bytes]) -> list[Entry]:
    return [entry for payload in payloads if (entry := decode(payload)) is not None]
