"""The answer to a claim of a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from tasks.journal.items import Append
    from tasks.messages.journal import Entry

Answer: TypeAlias = Literal["claimed", "cancelled", "busy", "elsewhere", "ended", "other"]


@dataclass(slots=True, frozen=True, kw_only=True)
class ClaimAnswer:
    """The answer to a claim.

    - ``claimed``: the request is this worker's, as ``attempt``; ``entries`` are those of earlier attempts.
    - ``cancelled``: the same, but it was cancelled before: append an ``end`` with ``finish_reason`` ``cancelled``, do
      not compute. The claim is written all the same, so that the end and its usage are this worker's to write.
    - ``busy``: its owner is alive and has not released it. ``owner`` may be this worker itself.
    - ``elsewhere``: this worker does not hold the message any more, which waits for another one.
    - ``ended``: the last of ``entries`` is its end or error.
    - ``other``: another request, with other parameters, has this id.

    ``items`` are the same entries and this claim, as :meth:`Journal.fill` wants them; empty unless this worker holds
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
