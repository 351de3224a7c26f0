"""Bounds how long requests wait for each other in one engine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, frozen=True, kw_only=True)
class Patience:
    """The bounds of waiting.

    Args:
        overtake_s: how long others may overtake a request that cannot join the running batch.
        promise_s: how long a request waits for memory that was promised, with nothing else to do.
        promise_look_s: time between two looks meanwhile.
        recover_steps: after so many steps in a row that fitted into memory, a batch that was halved may grow again.
    """

    overtake_s: float = 2.0
    promise_s: float = 10.0
    promise_look_s: float = 0.01
    recover_steps: int = 512
