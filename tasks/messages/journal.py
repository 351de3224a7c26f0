"""The entries of a journal: JSON objects that a reader in any language can follow. docs/wire-format.md tells their story.

A reader skips types and fields that it does not know.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tasks.messages.answer import Usage

from tasks.messages.encoding import from_json, quoted, to_compact_json

VERSION = 1


@dataclass(slots=True, frozen=True, kw_only=True)
class Claim:
    """A worker (``node#boot``) took the request. ``crashes`` counts engines and workers that died with it in their batch.

    ``nonce`` tells this claim from any other of the same number; ``queued_ms`` is known to a request's first claim.
    ``delivery`` is the delivery tag of the message that the worker holds: without that message it does not run the request.
    """

    type: ClassVar[str] = "claim"
    attempt: int
    worker: str
    crashes: int = 0
    nonce: str = ""
    queued_ms: float | None = None
    delivery: str = ""


@dataclass(slots=True, frozen=True, kw_only=True)
class Start:
    """The prompt was tokenised and waits for its prefill.

    ``rendering`` is for the worker that resumes the request: what its chat template wrote, in the engine's own encoding.
    ``warnings`` say what of the request's constraint is not enforced.
    """

    type: ClassVar[str] = "start"
    attempt: int
    model: str
    revision: str
    prompt_tokens: int
    cached_tokens: int
    prompt_hash: str
    rendering: str = ""
    warnings: list[str] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)  # a frozen one takes twice as long to make, and most entries are tokens
class Token:
    """Tokens ``index`` … ``index + len(ids) - 1`` and the text of one kind that they completed, which may be empty.

    ``kind`` is a :data:`tasks.messages.answer.Kind`, or one that a later version writes. An entry of the kind ``tool_call`` says
    the next part of a function's arguments: ``call`` numbers the calls of an answer, and the first entry of each has the
    ``call_id`` and the function's ``name``.
    """

    type: ClassVar[str] = "token"
    attempt: int
    index: int
    ids: list[int]
    text: str
    choice: int = 0
    kind: str = "content"
    logprobs: list[dict[str, Any]] | None = None
    call: int | None = None
    call_id: str | None = None
    name: str | None = None


@dataclass(slots=True, frozen=True, kw_only=True)
class Release:
    """The worker gave the request back. ``crashed`` says that an engine died with it in its batch."""

    type: ClassVar[str] = "release"
    attempt: int
    crashed: bool


@dataclass(slots=True, frozen=True, kw_only=True)
class End:
    """The request is answered; ``index`` is the number of its tokens. Times are in ms, by the worker's monotonic clock.

    ``warnings`` say, for people, what of the answer is not as it was asked for.
    """

    type: ClassVar[str] = "end"
    attempt: int
    index: int
    finish_reason: str
    usage: Usage
    timing: dict[str, float | None] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


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
_FIELDS = {name: frozenset(names) for name, names in _NAMES.items()}
#: What an entry says of a tool's call alone is left out of all others: most entries are a few bytes of text.
_OF_CALLS = frozenset({"call", "call_id", "name"})


def contiguous(entries: Iterable[Entry]) -> list[Token]:
    """The token entries of a journal up to its first hole: each index once, and in order.

    No writer of this version leaves a hole, and a later attempt goes on before one that it finds: what follows a hole in an
    attempt is left out, what a later attempt put in its place is not.
    """
    found: list[Token] = []
    next_index = 0
    for entry in entries:
        if isinstance(entry, Token) and _is_sound(entry) and entry.index == next_index:
            found.append(entry)
            next_index += len(entry.ids)
    return found


def _is_sound(token: Token) -> bool:
    return isinstance(token.ids, list) and isinstance(token.text, str) and isinstance(token.logprobs, list | None)


def encode(entry: Entry) -> str:
    """The entry as the JSON text that goes into stream field ``d`` and onto the channel."""
    if isinstance(entry, Token) and entry.logprobs is None and entry.call is None:
        return _plain(entry)
    record: dict[str, Any] = {"v": VERSION, "type": entry.type}
    for name in _NAMES[entry.type]:  # dataclasses.asdict copies deeply, at three times the cost
        value = getattr(entry, name)
        if value is not None or name not in _OF_CALLS:
            record[name] = value
    return to_compact_json(record)


def _plain(token: Token) -> str:
    """A token's text and ids, as the encoder would write them in six times the time."""
    ids = ",".join(map(str, token.ids))
    return (
        f'{{"v":{VERSION},"type":"token","attempt":{token.attempt},"index":{token.index},"ids":[{ids}],'
        f'"text":{quoted(token.text)},"choice":{token.choice},"kind":{quoted(token.kind)},"logprobs":null}}'
    )


def decode(payload: str | bytes) -> Entry | None:
    """The entry in this JSON text; ``None`` where it is of a type, version or shape that this code does not know."""
    try:
        record = from_json(payload if isinstance(payload, str) else payload.decode())
        name = record.pop("type")
        record.pop("v", None)
        kind = TYPES[name]
        try:  # a reader of a thousand streams decodes 20,000 entries a second: only those of a later version are looked through
            return kind(**record)
        except TypeError:
            return kind(**{key: value for key, value in record.items() if key in _FIELDS[name]})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
