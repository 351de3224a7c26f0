"""The end of a journal that nobody writes any more: its last owner, and the entry that follows its entries."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tasks.messages.answer import usage_of
from tasks.messages.journal import Claim, End, Entry, Error, Release, Start, contiguous

if TYPE_CHECKING:
    from collections.abc import Sequence


def holder(entries: Sequence[Entry], nonce: str = "") -> tuple[str, str]:
    """Return the worker that holds the request and its delivery of it; empty where nobody does, so that others may end it.

    Nobody does after a release, and where the last entry is the claim of this nonce.
    """
    last = entries[-1] if entries else None
    if last is None or isinstance(last, Release) or (isinstance(last, Claim) and nonce and last.nonce == nonce):
        return "", ""
    claims = (entry for entry in reversed(entries) if isinstance(entry, Claim))
    return next(((str(claim.worker), str(claim.delivery)) for claim in claims), ("", ""))


def after(entries: Sequence[Entry], attempt: int, entry: End | Error) -> End | Error:
    """Return the entry after these, with its number and their counts."""
    if isinstance(entry, Error):
        return replace(entry, attempt=attempt)
    prompt_tokens = next((earlier.prompt_tokens for earlier in entries if isinstance(earlier, Start)), 0)
    tokens = contiguous(entries)
    index = sum(len(token.ids) for token in tokens)
    reasoning_tokens = sum(len(token.ids) for token in tokens if token.kind == "reasoning")
    usage = usage_of(prompt_tokens, 0, index, reasoning_tokens) | entry.usage
    return replace(entry, attempt=attempt, index=index, usage=usage)
