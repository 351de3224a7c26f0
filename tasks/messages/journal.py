"""The entries of a journal: JSON objects that a reader in any language can follow. docs/wire-format.md tells their story.

A reader skips types and fields that it does not know.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

if TYPE_CHECKING:
    from tasks.messages.answer import Usage

from tasks.messages.encoding import to_compact_json

VERSION = 1


@dataclass(slots=True, frozen=True, kw_only=True)
class Claim:
    """A worker (``node#boot``) took the request. ``crashes`` counts engines and workers that died with it in their batch.

    ``nonce`` tells this claim from any other of the same number; ``queued_ms`` is known to a request's first claim.
    """

    type: ClassVar[str] = "claim"
    attempt: int
    worker: str
    crashes: int = 0
    nonce: str = ""
    queued_ms: float | None = None


@dataclass(slots=True, frozen=True, kw_only=True)
class Start:
    """The prompt was tokenised and waits for its prefill."""

    type: ClassVar[str] = "start"
    attempt: int
    model: str
    revision: str
    prompt_tokens: int
    cached_tokens: int
    prompt_hash: str


@dataclass(slots=True, frozen=True, kw_only=True)
class Token:
    """Tokens ``index`` … ``index + len(ids) - 1`` and the text of one kind that they completed, which may be empty.

    ``kind`` is a :data:`tasks.messages.answer.Kind`, or one that a later version writes.
    """

    type: ClassVar[str] = "token"
    attempt: int
    index: int
    ids: list[int]
    text: str
    choice: int = 0
    kind: str = "content"
    logprobs: list[dict[str, Any]] | None = None


@dataclass(slots=True, frozen=True, kw_only=True)
class Release:
    """The worker gave the request back. ``crashed`` says that an engine died with it in its batch."""

    type: ClassVar[str] = "release"
    attempt: int
    crashed: bool


@dataclass(slots=True, frozen=True, kw_only=True)
class End:
    """The request is answered; ``index`` is the number of its tokens. Times are in ms, by the worker's monotonic clock."""

    type: ClassVar[str] = "end"
    attempt: int
    index: int
    finish_reason: str
    usage: Usage
    timing: dict[str, float | None] = field(default_factory=dict)


@dataclass(slots=True, frozen=True, kw_only=True)
class Error:
    """The request failed; ``code`` is one of :mod:`tasks.errors`."""

    type: ClassVar[str] = "error"
    attempt: int
    code: str
    message: str
    retryable: bool = False


Entry: TypeAlias = Claim | Start | Token | Release | End | Error
TYPES: dict[str, type[Entry]] = {entry.type: entry for entry in (Claim, Start, Token, Release, End, Error)}
_NAMES = {name: tuple(field_.name for field_ in fields(kind)) for name, kind in TYPES.items()}


def encode(entry: Entry) -> str:
    """The entry as the JSON text that goes into stream field ``d`` and onto the channel."""
    record: dict[str, Any] = {"v": VERSION, "type": entry.type}
    for name in _NAMES[entry.type]:  # dataclasses.asdict copies deeply, at three times the cost
        record[name] = getattr(entry, name)
    return to_compact_json(record)


def decode(payload: str | bytes) -> Entry | None:
    """The entry in this JSON text; ``None`` where it is of a type, version or shape that this code does not know."""
    try:
        record = json.loads(payload)
        name = record["type"]
        return TYPES[name](**{key: value for key, value in record.items() if key in _NAMES[name]})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
