"""What a reader saw of one request, and whether that is right."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Way(StrEnum):
    """How a request is read."""

    STREAM = "stream"
    LATE = "late"  # read when the result is there
    BESIDE = "beside"  # ``get()`` on another thread while the stream is read
    CANCELLED = "cancelled"  # revoked in mid-stream


@dataclass(slots=True, frozen=True)
class Wanted:
    """The undisturbed run: all that it says, in how many tokens, and its ``finish_reason``."""

    text: str
    tokens: int
    finish_reason: str


@dataclass(slots=True)
class Reading:
    """What one reader saw: times of its chunks, and how it ended."""

    number: int
    tokens: int
    way: Way
    task_id: str = ""
    times: list[float] = field(default_factory=list)
    cuts: int = 0
    verdict: str = "running"
    detail: str = ""


@dataclass(slots=True)
class Seen:
    """A stream that was read to its end, and what the result says.

    Args:
        state: Celery's state of the result.
        stored: the result's text; ``None`` where there is none, as of a cancelled request.
    """

    indices: list[int]
    text: str
    finish_reasons: list[str]
    state: str = ""
    stored: str | None = None


def judge(seen: Seen, wanted: Wanted | None, reading: Reading) -> tuple[str, str]:
    """``ok``, or what is wrong: each index once and in order, the undisturbed run's text and end, and one result."""
    indices = seen.indices
    if len(set(indices)) < len(indices):
        return "repeated", f"indices {sorted(index for index in set(indices) if indices.count(index) > 1)}"
    if indices != list(range(len(indices))) or len(seen.finish_reasons) != 1:
        missing = sorted(set(range(reading.tokens)) - set(indices))
        return "lost", f"ends {seen.finish_reasons} after {len(indices)} of {reading.tokens} tokens, without {missing}"
    (reason,) = seen.finish_reasons
    if wanted is None:
        return ("ok", "") if seen.text == seen.stored else ("wrong", f"{seen.text!r} is stored as {seen.stored!r}")
    if reason == "cancelled" and reading.way is Way.CANCELLED:
        return _judge_cancelled(seen, wanted.text)
    if reason != wanted.finish_reason or len(indices) != wanted.tokens:
        return "lost", f"{len(indices)} of {wanted.tokens} tokens, then {reason}"
    if seen.text != wanted.text or seen.stored != wanted.text:
        return "wrong", f"{seen.text!r} and {seen.stored!r} instead of {wanted.text!r}"
    return "ok", ""


def _judge_cancelled(seen: Seen, wanted: str) -> tuple[str, str]:
    if seen.state != "REVOKED":
        return "wrong", f"the stream says cancelled, the result {seen.state}"
    # The last character may be one that the cut left without its last bytes.
    if not wanted.startswith(seen.text.rstrip("\N{REPLACEMENT CHARACTER}")):
        return "wrong", f"{seen.text!r} is no beginning of {wanted!r}"
    return "ok", ""
