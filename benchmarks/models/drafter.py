"""Rows whose steps bring several tokens: in a sampler's place, with drafts that are right up to a place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx

from tasks.engine.model.selftest import Follower, Step
from tasks.engine.sampling.chain import places
from tasks.engine.sampling.sampler import Drawn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.engine.generation.runner import Draw

#: The most tokens of a draft that are the row's, and how many drafts there are to one that has another token at its end.
MOST_TOKENS, WRONG_EVERY = 3, 3


class Drafter(Follower):
    """Drafts for each row what it draws next: of lengths that differ, and some with another token at the end."""

    def __init__(self, vocabulary_tokens: int) -> None:
        super().__init__()
        self._vocabulary_tokens = vocabulary_tokens
        self._drawn_uids: list[int] | None = None

    def is_led(self, _uid: int) -> bool:
        """Every row is."""
        return True

    def expected(self, uid: int, most: int) -> list[int]:
        """The row's draft."""
        length = self._lengths[uid]
        draft = self._sequences[uid][length : length + min(most, (uid + length) % (MOST_TOKENS + 1))]
        if draft and (uid + length) % WRONG_EVERY == 0:
            draft[-1] = (draft[-1] + 1) % self._vocabulary_tokens
        return draft

    def sample(self, uids: Sequence[int], logits: mx.array) -> Drawn:
        """See :meth:`Follower.sample`."""
        self._drawn_uids = None
        return super().sample(uids, logits)

    @staticmethod
    def draft(uids: Sequence[int], drafts: Sequence[Sequence[int]]) -> list[tuple[int, Sequence[int]]]:
        """Each row with its draft."""
        return list(zip(uids, drafts, strict=True))

    def sample_drafted(self, chains: Sequence[tuple[int, Sequence[int]]], logits: mx.array) -> Drawn:
        """Each row's next token, and those behind it for which the draft was right."""
        uids, drafts = zip(*chains, strict=True)
        order = places([1 + len(draft) for draft in drafts])
        counted = [place for place, (row, depth) in enumerate(order) if self._is_right(uids[row], drafts[row][:depth])]
        rows = [order[place] for place in counted]
        drawn_uids = [uids[row] for row, _ in rows]
        steps = [self._lengths[uids[row]] - 1 + depth for row, depth in rows]
        self.steps.append(Step(drawn_uids, steps, logits[mx.array(counted)]))
        tokens = [self._sequences[uid][step + 1] for uid, step in zip(drawn_uids, steps, strict=True)]
        for uid in drawn_uids:
            self._lengths[uid] += 1
        self._drawn_uids = drawn_uids
        return Drawn(mx.array(tokens, mx.uint32), mx.array([True] * len(tokens)))

    def read(self, drawn: Drawn, uids: Sequence[int]) -> list[Draw]:
        """What the rows drew, several tokens of some."""
        return drawn.read(uids if self._drawn_uids is None else self._drawn_uids)

    def _is_right(self, uid: int, draft: Sequence[int]) -> bool:
        length = self._lengths[uid]
        return list(draft) == self._sequences[uid][length : length + len(draft)]
