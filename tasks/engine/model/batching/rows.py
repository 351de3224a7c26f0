"""Groups of rows: those whose prompt is being computed, and those that get a token a step, or more by a draft."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import mlx.core as mx

from tasks.engine.model.batching.caches import JointCaches, SeparateCaches
from tasks.engine.model.batching.slots import SlotCaches

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlx.nn.layers.base import Module

    from tasks.engine.generation.runner import Draw
    from tasks.engine.model.batching.caches import Caches
    from tasks.engine.model.batching.head import Head
    from tasks.engine.model.drafting.drafts import Drafts
    from tasks.engine.sampling.sampler import BatchSampler, Drawn
    from tasks.messages.load import Batching


@dataclass(slots=True, eq=False)
class Row:
    """One sequence. ``tokens`` are prompt, ids and all that was drawn; the first ``computed`` of them are in its cache.

    ``is_urgent`` says that its prompt was computed alone.
    """

    uid: int
    tokens: list[int]
    left: int
    computed: int
    is_urgent: bool = False

    def take(self, token: int) -> None:
        """Go on with a token that was drawn."""
        self.tokens.append(token)
        self.left -= 1


def merging(batching: Batching, slots: bool, pause: Callable[[], None]) -> Callable[[list[list[Any]]], Caches]:
    """Makes the caches of rows that can be batched like this; those in slots call ``pause`` in the middle of a step."""
    if batching == "apart":
        return SeparateCaches.merge
    return partial(SlotCaches.merge, pause=pause) if slots and batching == "padded" else JointCaches.merge


class Rows:
    """Rows and their caches; ``caches`` is ``None`` where there are no rows."""

    def __init__(self, rows: list[Row], caches: Caches | None) -> None:
        self.rows = rows
        self.caches = caches

    def join(self, other: Rows) -> None:
        """Append another group's rows."""
        if self.caches is None:
            self.caches = other.caches
        else:
            self.caches.join(other.caches)
        self.rows = [*self.rows, *other.rows]

    def keep(self, indices: list[int]) -> None:
        """Drop all rows but these."""
        self.rows = [self.rows[index] for index in indices]
        if not indices:
            self.caches = None
        elif self.caches is not None:
            self.caches.keep(indices)

    def extract(self, index: int) -> list[Any]:
        """A copy of one row's cache."""
        assert self.caches is not None
        return self.caches.extract(index)

    @property
    def row_bytes(self) -> int:
        """The bytes of one row's caches."""
        return self.caches.nbytes // len(self.rows) if self.caches is not None else 0


class Prefilling(Rows):
    """Rows whose prompt is being computed. The step that computes its last token draws the first one of the answer.

    A row of which one token is left needs no step of its own, which would cost as much as a decode step of all rows: it decodes
    next. So does each row whose model does not choose what it computes logits for, once one token is left.
    """

    def __init__(self, head: Head, sampler: BatchSampler) -> None:
        super().__init__([], None)
        self._head = head
        self._sampler = sampler

    def todo_of(self, row: Row) -> int:
        """Return how many tokens of a row prefill steps have to compute."""
        left = len(row.tokens) - row.computed
        return left if left > 1 and self._head.chooses else left - 1

    def todo(self) -> list[int]:
        """The same for all rows."""
        return [self.todo_of(row) for row in self.rows]

    def compute(self, counts: list[int]) -> list[Draw]:
        """Compute the next ``counts[i]`` tokens of row i; returns the first tokens of those whose prompt that completes."""
        assert self.caches is not None
        tokens = []
        for row, count in zip(self.rows, counts, strict=True):
            tokens.append(row.tokens[row.computed : row.computed + count])
            row.computed += count
        ends = [index for index, row in enumerate(self.rows) if row.computed == len(row.tokens)]
        logits = self.caches.prefill(self._head, tokens, ends)
        return [] if logits is None else self._draw([self.rows[index] for index in ends], logits)

    def _draw(self, rows: list[Row], logits: mx.array) -> list[Draw]:
        uids = [row.uid for row in rows]
        draws = self._sampler.read(self._sampler.sample(uids, logits), uids)
        for row, draw in zip(rows, draws, strict=True):
            row.take(draw.token)
        return draws

    def split_ready(self) -> Rows:
        """Take out the rows whose prompt is complete."""
        todo = self.todo()
        ready = [index for index, left in enumerate(todo) if not left]
        if not ready:
            return Rows([], None)
        if len(ready) == len(todo):
            taken = Rows(self.rows, self.caches)
            self.keep([])
            return taken
        assert self.caches is not None
        taken = Rows(self.rows, self.caches.copy())
        taken.keep(ready)
        self.keep([index for index, left in enumerate(todo) if left])
        return taken


class Decoding(Rows):
    """Rows that get one token a step; those that are drafted for may get more.

    ``_drawn`` is what the device draws for ``_drawn_rows`` while the host does other things. Rows that joined since then
    go on from the last token of their prompt; they need no step of their own. With ``ahead`` the device gets its next
    step before the host reads the last one. ``drafts`` are for caches in slots, and not with ``ahead``: what may be drafted
    follows from what was drawn last.
    """

    def __init__(self, model: Module, sampler: BatchSampler, *, ahead: bool, drafts: Drafts | None = None) -> None:
        super().__init__([], None)
        self._model = model
        self._sampler = sampler
        self._ahead = ahead
        self._drafts = drafts
        self._drawn: Drawn | None = None
        self._drawn_rows: list[Row] = []
        #: Whether the last step had drafts.
        self.drafted = False

    @property
    def in_flight(self) -> bool:
        """Whether the device has been given a step that was not read yet."""
        return self._drawn is not None

    def keep(self, indices: list[int]) -> None:
        """Drop all rows but these, and with the last row the step in flight."""
        super().keep(indices)
        if not indices:
            self._drawn, self._drawn_rows = None, []

    def step(self) -> list[Draw]:
        """The tokens of the step in flight; with ``ahead`` the next one is launched first, if any row goes on."""
        drawn, rows = self._drawn, self._drawn_rows
        assert drawn is not None  # prefill() leaves no rows without one
        uids = [row.uid for row in rows]
        draws = None
        if self._ahead and any(row.left > 1 or row not in rows for row in self.rows):
            draws = self.launch()
        else:
            self._drawn, self._drawn_rows = None, []
        draws = draws or self._sampler.read(drawn, uids)
        taken = self._take(dict(zip(uids, rows, strict=True)), draws)
        if self._drafts is not None and taken:
            self._count_drafted()
        return taken

    def _take(self, drawn_for: dict[int, Row], draws: Sequence[Draw]) -> list[Draw]:
        here = set(self.rows)
        taken = [draw for draw in draws if drawn_for[draw.uid] in here]
        for draw in taken:
            drawn_for[draw.uid].take(draw.token)
        return taken

    def _count_drafted(self) -> None:
        """Have the caches keep what was computed of the tokens that rows drew beyond their first ones."""
        for index, row in enumerate(self.rows):
            more = len(row.tokens) - 1 - row.computed
            if more:
                assert isinstance(self.caches, SlotCaches)
                self.caches.accept(index, more)
                row.computed += more

    def launch(self) -> list[Draw] | None:
        """Give the device a step for all rows, without waiting for the one that it may be at.

        Where a row is constrained, the device begins on the logits alone, and the host waits for the step before: what may be
        drawn depends on what was drawn. That step's draws are returned then.
        """
        assert self.caches is not None
        uids = [row.uid for row in self.rows]
        drafts = self._drafts.propose(self.rows) if self._drafts is not None else []
        self.drafted = any(drafts)
        if self.drafted:
            self._launch_drafted(uids, drafts)
            return None
        constrained = self._sampler.is_constrained(uids)
        if constrained and self._drawn is None:
            self._sampler.begin_masks(uids)
        logits = self.caches.step(self._model, self._inputs())
        draws = None
        if constrained:
            mx.async_eval(logits)  # type: ignore[no-untyped-call]  # mlx's own stub says so
            if self._drawn is not None:
                draws = self._sampler.read(self._drawn, [row.uid for row in self._drawn_rows])
        self._launched(self._sampler.sample(uids, logits))
        return draws

    def _launch_drafted(self, uids: list[int], drafts: list[list[int]]) -> None:
        assert isinstance(self.caches, SlotCaches)
        tokens = [[row.tokens[-1], *draft] for row, draft in zip(self.rows, drafts, strict=True)]
        chains = self._sampler.draft(uids, drafts)
        logits = self.caches.step_drafted(self._model, tokens)
        self._launched(self._sampler.sample_drafted(chains, logits))

    def _launched(self, drawn: Drawn) -> None:
        self._drawn, self._drawn_rows = drawn, self.rows
        drawn.launch()
        for row in self.rows:
            row.computed += 1

    def _inputs(self) -> mx.array:
        """Each row's last token; those that were drawn by the step in flight are known to the device alone."""
        places = {row: place for place, row in enumerate(self._drawn_rows)}
        old = [places[row] for row in self.rows if row in places]
        new = mx.array([row.tokens[-1] for row in self.rows if row not in places], mx.uint32)
        if self._drawn is None or not old:
            return new
        tokens = self._drawn.tokens if len(old) == len(places) else self._drawn.tokens[mx.array(old)]
        return mx.concatenate([tokens.astype(mx.uint32), new]) if new.size else tokens
