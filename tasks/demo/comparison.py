"""Compares the demo's questions all at once with the same questions one after another."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from tasks.demo.conversation import ask, finished

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tasks.demo.conversation import Conversation
    from tasks.generate import GenerateTask

POLL_S = 0.02


def one_after_another(
    generate: GenerateTask, questions: Sequence[str], check: Callable[[], None], **parameters: Any
) -> list[Conversation]:
    """Ask each question when the one before is answered. ``check`` is called often and raises to stop it."""
    conversations = []
    for question in questions:
        (conversation,) = ask(generate, [question], **parameters)
        conversations.append(conversation)
        try:
            while not finished([conversation]):
                check()
                time.sleep(POLL_S)
        finally:
            conversation.release()
    return conversations


def comparison(together: Sequence[Conversation], alone: Sequence[Conversation]) -> list[str]:
    """Two lines for people: tokens, seconds and speed of both ways, and how much faster the first one is.

    A third line says why, where a batch was no faster: other programs took the processor meanwhile.
    """
    rows = []
    for name, conversations in (("all at once", together), ("one after another", alone)):
        tokens = sum(conversation.tokens for conversation in conversations)
        elapsed_s = _elapsed_s(conversations)
        rows.append((name, tokens, elapsed_s, tokens / elapsed_s if elapsed_s > 0 else 0.0))
    width = max(len(name) for name, *_ in rows)
    lines = [
        f"{name:<{width}}  {tokens} tokens in {elapsed_s:.1f} s: {rate:.0f} tokens/s"
        for name, tokens, elapsed_s, rate in rows
    ]
    gain = rows[0][3] / rows[1][3] if rows[1][3] > 0 else 0.0
    if gain > 1:
        lines[0] += f", {gain:.1f} times as fast"
    elif gain:
        lines.append(f"Other programs use this machine (load {os.getloadavg()[0]:.0f}): compare while it is quiet.")
    return lines


def _elapsed_s(conversations: Sequence[Conversation]) -> float:
    """From the first question to the end of the last answer."""
    ends = [conversation.ended_at for conversation in conversations if conversation.ended_at is not None]
    return max(ends) - min(conversation.sent_at for conversation in conversations) if ends else 0.0
