"""The running batch, on mlx-lm's caches.

It takes the place of mlx-lm's ``BatchGenerator``, which it follows: prompts are computed in one joint cache, rows whose
prompt is complete move to another, and on a GPU a decode step is launched before the tokens of the last one are read, so
that the host works while the device does. What is different, and what that gained, is in docs/performance.md:

- decoding and prefill are two calls, so that decoded tokens leave before a prefill and not after it;
- the prefill step that completes a prompt draws its first token, which mlx-lm leaves to the next decode step;
- one prefill step is bounded over all its rows, and by the time that running streams can wait;
- the cache of a row that ends is copied out and evaluated, or dropped, before the next step: a lazy copy keeps the old
  batch alive, and the step after it then copies everything (7 times as long);
- one call samples for all rows, and log-probabilities are computed only for rows that ask;
- nothing is launched after the last token of every row; rows are padded, get equal counts, or are computed one by one.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import mlx.core as mx

from tasks.engine.model.batching.head import Head
from tasks.engine.model.batching.pace import (
    GATHER_STEPS,
    IDLE_FACTOR,
    PREFILL_STEPS,
    ROW_TOKENS,
    Pace,
    plan,
    worth_gathering,
)
from tasks.engine.model.batching.prefixes import SHARED_TOKENS, Prefixes
from tasks.engine.model.batching.rows import Decoding, Prefilling, Row, Rows
from tasks.engine.model.batching.urgent import Urgent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlx.nn.layers.base import Module

    from tasks.engine.constraint.grammar import Grammar
    from tasks.engine.generation.runner import Draw
    from tasks.engine.model.batching.stepping import Stepping
    from tasks.engine.sampling.sampler import BatchSampler
    from tasks.messages.engine import Sampling

#: Rows that come within this number of decode steps after others have joined wait for the end of them, and join together.
HOLD_STEPS = 2


class Batch:
    """All rows of an engine and its prompt cache. Belongs to one thread, as all of MLX does.

    Args:
        model: a model of mlx-lm.
        sampler: draws for all rows.
        stepping: how rows are stepped.
        prefill_step_tokens: the most prompt tokens, over all rows, that delay a decode step.
        prompt_cache_bytes: the most that cached prompts may take; 0 keeps none.
    """

    def __init__(
        self,
        model: Module,
        sampler: BatchSampler,
        stepping: Stepping,
        *,
        prefill_step_tokens: int,
        prompt_cache_bytes: int,
    ) -> None:
        self._model = model
        self._sampler = sampler
        self._step_tokens = prefill_step_tokens
        self._prefixes = Prefixes(model, prompt_cache_bytes)
        self._stepping = stepping
        self._uids: set[int] = set()
        self._queue: list[tuple[Row, list[Any]]] = []
        self._head = Head(model)
        self._prefilling = Prefilling(self._head, self._sampler)
        self._urgent = Urgent(self._head, sampler, stepping, most_tokens=prefill_step_tokens)
        self._drafts = stepping.make_drafts(sampler, model)
        self._decoding = self._no_rows()
        self._pace = Pace()
        self._stepped_at: float | None = None
        self._since_join = 0
        #: Whether any of the rows that decode has had a step, and what was prefilled when the first of them became ready.
        self._has_begun = False
        self._gathers_since: int | None = None
        #: First tokens of a batch that gathers: who read one would wait for the second for as long as that takes.
        self._held: list[Draw] = []
        self.prefilled_tokens = 0

    def insert(
        self,
        uid: int,
        prompt: list[int],
        ids: list[int],
        limit: int,
        sampling: Sampling,
        grammar: Grammar | None = None,
    ) -> int:
        """Add a row for a prompt and the ids that are known, of ``limit``; returns how many tokens the prompt cache holds."""
        tokens = prompt + ids
        self._uids.add(uid)
        self._sampler.add(uid, sampling, prompt, ids, grammar)
        cache, cached = self._fetch(tokens)
        self._queue.append((Row(uid, tokens, limit - len(ids), cached), cache))
        return cached

    def compute_alone(self, uid: int) -> list[Draw]:
        """Compute the prompt of a row that was just added, and its first token, or nothing of a long one; touches no others."""
        place, (row, cache) = next(waiting for waiting in enumerate(self._queue) if waiting[1][0].uid == uid)
        before, draws = row.computed, self._urgent.compute(row, cache)
        if draws is None:
            return []
        del self._queue[place]
        self._stepped_at = None
        self.prefilled_tokens += row.computed - before
        return draws

    def _begin_step(self, pause: Callable[[], None] | None) -> None:
        if self._urgent.rows:
            self._decoding.join(self._urgent.take())
        self._urgent.begin_step(pause)

    def decode(self, pause: Callable[[], None] | None = None) -> list[Draw]:
        """One token for each row that had a step in flight. ``pause`` is called in its middle, where rows lie in slots."""
        self._begin_step(pause)
        if not self._has_begun:
            self._stepped_at = None
            if not self._decoding.rows:
                self._gathers_since = None
                return []
            if self._gathers():
                return []
            self._has_begun, self._gathers_since = True, None
            if self._held:
                return self._first_tokens()
        if not self._decoding.in_flight:
            self._decoding.launch()
        drafted = self._decoding.drafted
        draws = self._decoding.step()
        now = time.perf_counter()
        if self._stepped_at is not None and draws:
            self._stepped(draws, now - self._stepped_at, drafted=drafted)
        self._stepped_at = now
        return draws

    def _stepped(self, draws: list[Draw], seconds: float, *, drafted: bool) -> None:
        rows = len({draw.uid for draw in draws})
        if not drafted:
            self._pace.stepped(rows, seconds)
        if self._drafts is not None:
            self._drafts.stepped(rows, len(draws), seconds)

    def _no_rows(self) -> Decoding:
        return Decoding(self._model, self._sampler, ahead=self._stepping.ahead, drafts=self._drafts)

    def prefill(self, pause: Callable[[], None] | None = None) -> list[Draw]:
        """Compute one bounded step of the prompts that are not complete; returns the first tokens of those that it completes.

        :meth:`decode`, which has the same argument, returns those of a batch that begins: it knows what came since.
        """
        self._begin_step(pause)
        self._since_join += 1
        if not self._holds():
            self._extend_prefill(self._bounds()[0])
        self._promote()
        if self._prefilling.rows:
            self._held += self._compute_prompts()
            self._promote()
        if self._has_begun and self._decoding.rows and not self._decoding.in_flight and not self._held:
            self._decoding.launch()
        return self._first_tokens() if self._has_begun else []

    def _first_tokens(self) -> list[Draw]:
        draws, self._held = self._held, []
        return draws

    def _gathers(self) -> bool:
        """Whether rows whose prompt is complete wait for others of their burst, before any of them decodes."""
        if any(row.is_urgent for row in self._decoding.rows):
            return False
        if self._gathers_since is None:
            self._gathers_since = self.prefilled_tokens
        most_tokens = GATHER_STEPS * self._step_tokens - (self.prefilled_tokens - self._gathers_since)
        todo = [*self._prefilling.todo(), *(self._prefilling.todo_of(row) for row, _ in self._queue)]
        done_tokens = sum(len(row.tokens) for row in self._decoding.rows)
        return worth_gathering(done_tokens, len(self._decoding.rows), todo, most_tokens)

    def _compute_prompts(self) -> list[Draw]:
        started = time.perf_counter()
        counts = plan(self._prefilling.todo(), *self._bounds(), equal=self._stepping.batching == "equal")
        draws = self._prefilling.compute(counts)
        self.prefilled_tokens += sum(counts)
        seconds = time.perf_counter() - started - self._urgent.seconds
        self._pace.prefilled(max(counts) * len(counts), seconds, beside_a_step=self._decoding.in_flight)
        self._stepped_at = None
        return draws

    def remove(self, uids: Sequence[int], *, keep: bool) -> None:
        """Take rows out, in any state; ``keep`` puts what was computed of them into the prompt cache."""
        gone = set(uids)
        self._held = [draw for draw in self._held if draw.uid not in gone]
        self._queue = [(row, cache) for row, cache in self._queue if row.uid not in gone]
        for group in (self._prefilling, self._decoding, self._urgent):
            left = [index for index, row in enumerate(group.rows) if row.uid not in gone]
            if len(left) == len(group.rows):
                continue
            if keep:
                for index, row in enumerate(group.rows):
                    if row.uid in gone:
                        self._store(group, index)
            group.keep(left)
        self._has_begun = self._has_begun and bool(self._decoding.rows)
        for uid in uids:
            self._uids.remove(uid)
            self._sampler.remove(uid)

    def shares_prefill(self, tokens: list[int]) -> bool:
        """Whether a prompt that is being computed has a prefix in common with these that is worth waiting for."""
        coming = (*(row for row, _ in self._queue), *self._prefilling.rows)
        return self._prefixes.worth_waiting(tokens, coming, self._decoding.rows)

    @property
    def step_s(self) -> float:
        """The seconds of a decode step; 0 before the first one."""
        return self._pace.step_s

    @property
    def prompt_cache_bytes(self) -> int:
        """The bytes of the cached prompts."""
        return self._prefixes.nbytes

    def limit_prompt_cache(self, most_bytes: int) -> None:
        """Bound the cached prompts by this too, from now on."""
        self._prefixes.limit(most_bytes)

    def reset(self) -> None:
        """Drop all rows and cached prompts: after a failed step nothing that it touched can be trusted."""
        for uid in self._uids:
            self._sampler.remove(uid)
        self._uids.clear()
        self._queue = []
        self._prefilling, self._decoding = Prefilling(self._head, self._sampler), self._no_rows()
        self._urgent.keep([])
        self._prefixes.clear()
        self._stepped_at, self._has_begun, self._gathers_since, self._held = None, False, None, []
        mx.clear_cache()

    def _bounds(self) -> tuple[int, int]:
        """Tokens that a prefill step should compute, and may compute at most, over all rows."""
        most = self._step_tokens if self._has_begun else IDLE_FACTOR * self._step_tokens
        if (seconds := self._urgent.prefill_s) is not None:
            most = self._pace.tokens_in(seconds, most)
        if not self._has_begun:
            return most, most
        crowd = (len(self._queue) + len(self._prefilling.rows)) / len(self._decoding.rows)
        return self._pace.tokens(PREFILL_STEPS * max(1.0, crowd), most), most

    def _holds(self) -> bool:
        """Whether queued rows wait for more to come: rows that join one by one cost a read of all weights each."""
        few = self._has_begun and len(self._queue) < len(self._decoding.rows)
        return few and not self._prefilling.rows and self._since_join <= HOLD_STEPS

    def _extend_prefill(self, tokens: int) -> None:
        """Let queued rows join the prefill: a long prompt must not hold up all short ones behind it."""
        longest = max(self._prefilling.todo(), default=0)
        count = 0
        for row, _ in self._queue:
            longest = max(longest, self._prefilling.todo_of(row))
            beside = len(self._prefilling.rows) + count
            if beside and (beside + 1) * min(longest, ROW_TOKENS) > tokens:
                break
            count += 1
        joining, self._queue = self._queue[:count], self._queue[count:]
        if joining:
            self._since_join = 0
            rows, caches = zip(*joining, strict=True)
            self._prefilling.join(Rows(list(rows), self._urgent.merge(list(caches))))

    def _promote(self) -> None:
        ready = self._prefilling.split_ready()
        if ready.rows:
            self._decoding.join(ready)

    def _fetch(self, tokens: list[int]) -> tuple[list[Any], int]:
        """A cache for the longest known prefix, and its length. A row that decodes gives a copy of its own if it helps."""
        shared, index = self._prefixes.most_shared(tokens, self._decoding.rows)
        if shared >= self._prefixes.held(tokens) + SHARED_TOKENS:
            self._store(self._decoding, index)
        return self._prefixes.fetch(tokens)

    def _store(self, group: Rows, index: int) -> None:
        if self._prefixes.make_room(group.row_bytes):
            row = group.rows[index]
            self._prefixes.store(row.tokens[: row.computed], group.extract(index))
