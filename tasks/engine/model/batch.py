"""The running batch, on mlx-lm's batch caches. The one module that knows their internals (mlx-lm 0.32.2).

It takes the place of mlx-lm's ``BatchGenerator``, which it follows: prompts are computed in one joint cache, rows whose
prompt is complete move to another, and on a GPU a decode step is launched before the tokens of the last one are read, so
that the host works while the device does. What is different, and what that gained, is in docs/performance.md:

- decoding and prefill are two calls, so that decoded tokens leave before a prefill and not after it;
- one prefill step is bounded over all its rows, and by the time that running streams can wait;
- the cache of a row that ends is copied out and evaluated, or dropped, before the next step: a lazy copy keeps the old
  batch alive, and the step after it then copies everything (7 times as long);
- one call samples for all rows, and log-probabilities are computed only for rows that ask;
- nothing is launched after a step that brings the last token of every row.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import mlx.core as mx
from mlx_lm.models.cache import LRUPromptCache, can_trim_prompt_cache, make_prompt_cache, trim_prompt_cache

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlx.nn.layers.base import Module

    from tasks.engine.backend import Draw
    from tasks.engine.sampling.sampler import BatchSampler, Drawn
    from tasks.engine.sequence import Request

#: A shared prefix shorter than this is computed again rather than waited for or kept.
SHARED_TOKENS = 64
#: While others decode, a prefill step takes about as long as this many decode steps; longer where more wait than decode.
PREFILL_STEPS = 5
#: Rows that come within so many decode steps after others have joined wait for the end of them, and join together.
HOLD_STEPS = 2
#: While nobody decodes, a prefill step may be this many times as large.
IDLE_FACTOR = 4
#: Rows share a prefill step as long as each gets so many tokens of it.
LANE_TOKENS = 32
ROUND_TOKENS = 16
STRETCH = 1.25
#: Cached prompts are bounded in bytes; this bounds the bookkeeping of tiny ones.
MOST_PROMPTS = 1024


@dataclass(slots=True, eq=False)
class _Row:
    """One sequence. ``tokens`` are prompt, ids and all that was drawn; the first ``computed`` of them are in its cache."""

    uid: int
    tokens: list[int]
    left: int
    computed: int


class _Rows:
    """Rows and their joint cache: one object for each layer, whose arrays have one row for each of ``rows``."""

    def __init__(self, rows: list[_Row], cache: list[Any]) -> None:
        self.rows = rows
        self.cache = cache

    def join(self, other: _Rows) -> None:
        """Append another group's rows."""
        if self.rows:
            for mine, theirs in zip(self.cache, other.cache, strict=True):
                mine.extend(theirs)
        else:
            self.cache = other.cache
        self.rows = [*self.rows, *other.rows]

    def keep(self, indices: list[int]) -> None:
        """Drop all rows but these."""
        self.rows = [self.rows[index] for index in indices]
        if not indices:
            self.cache = []
        for layer in self.cache:
            layer.filter(indices)

    def extract(self, index: int) -> list[Any]:
        """A copy of one row's cache, evaluated: a lazy one would keep the whole batch's arrays alive."""
        cache = [layer.extract(index) for layer in self.cache]
        mx.eval([layer.state for layer in cache])
        return cache


class _Prefilling(_Rows):
    """Rows whose prompt is being computed, up to its last token, which is the first decode step's input."""

    @classmethod
    def merge(cls, rows: list[_Row], caches: list[list[Any]]) -> _Prefilling:
        return cls(rows, [layers[0].merge(list(layers)) for layers in zip(*caches, strict=True)])

    def todo(self) -> list[int]:
        return [len(row.tokens) - 1 - row.computed for row in self.rows]

    def compute(self, model: Module, counts: list[int]) -> None:
        """Compute the next ``counts[i]`` tokens of row i."""
        longest = max(counts)
        padding = [longest - count for count in counts]
        inputs = []
        for row, count, pad in zip(self.rows, counts, padding, strict=True):
            inputs.append(row.tokens[row.computed : row.computed + count] + [0] * pad)
            row.computed += count
        if any(padding):
            for layer in self.cache:
                layer.prepare(lengths=counts, right_padding=padding)
        model(mx.array(inputs), cache=self.cache)
        if any(padding):
            for layer in self.cache:
                layer.finalize()
        mx.eval([layer.state for layer in self.cache])

    def split_ready(self) -> _Rows:
        """Take out the rows whose prompt is complete."""
        todo = self.todo()
        ready = [index for index, left in enumerate(todo) if not left]
        if len(ready) == len(todo):
            taken = _Rows(self.rows, self.cache)
            self.keep([])
            return taken
        taken = _Rows(self.rows, copy.deepcopy(self.cache) if ready else [])
        taken.keep(ready)
        if ready:
            self.keep([index for index, left in enumerate(todo) if left])
        return taken


class _Decoding(_Rows):
    """Rows that get one token a step.

    ``_drawn`` is what the device draws for ``_drawn_rows`` while the host does other things. Rows that joined since then
    go on from the last token of their prompt; they need no step of their own. With ``ahead`` the device gets its next
    step before the host reads the last one.
    """

    def __init__(self, model: Module, sampler: BatchSampler, *, ahead: bool) -> None:
        super().__init__([], [])
        self._model = model
        self._sampler = sampler
        self._ahead = ahead
        self._drawn: Drawn | None = None
        self._drawn_rows: list[_Row] = []

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
        if self._ahead and any(row.left > 1 or row not in rows for row in self.rows):
            self.launch()
        else:
            self._drawn, self._drawn_rows = None, []
        assert drawn is not None  # prefill() leaves no rows without one
        here = set(self.rows)
        draws = drawn.read([row.uid for row in rows])
        return [self._take(row, draw) for row, draw in zip(rows, draws, strict=True) if row in here]

    def _take(self, row: _Row, draw: Draw) -> Draw:
        row.tokens.append(draw.token)
        row.left -= 1
        return draw

    def launch(self) -> None:
        """Give the device a step for all rows, without waiting for the one that it may be at."""
        logits = self._model(self._inputs()[:, None], cache=self.cache)[:, -1, :]
        self._drawn = self._sampler.sample([row.uid for row in self.rows], logits)
        self._drawn_rows = self.rows
        self._drawn.launch()
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


class _Pace:
    """What decode steps and prefill steps cost here, as running means: how many tokens each had, and seconds.

    A step costs reading all weights, whatever it computes, and then something for each token: a straight line through the
    two means. Taken as proportional, a small prefill step looks so dear that the next one is kept small as well.
    """

    def __init__(self) -> None:
        self._rows = 0.0
        self.step_s = 0.0
        self._tokens = 0.0
        self._prefill_s = 0.0

    def stepped(self, rows: int, seconds: float) -> None:
        """A decode step took so long."""
        self._rows, self.step_s = _mean(self._rows, rows), _mean(self.step_s, seconds)

    def prefilled(self, tokens: int, seconds: float, *, beside_a_step: bool) -> None:
        """A prefill step took so long, with a decode step ahead of it on the device or not."""
        seconds -= self.step_s if beside_a_step else 0.0
        if seconds > 0:
            self._tokens, self._prefill_s = _mean(self._tokens, tokens), _mean(self._prefill_s, seconds)

    def tokens(self, steps: float, most: int) -> int:
        """Prompt tokens that take about as long as so many decode steps: one lane at least."""
        if not self._prefill_s or not self.step_s:
            return min(most, int(2 * LANE_TOKENS * steps / PREFILL_STEPS))
        fixed_s, token_s = self._line()
        tokens = int((steps * self.step_s - fixed_s) / token_s) // ROUND_TOKENS * ROUND_TOKENS
        return min(most, max(tokens, LANE_TOKENS))

    def _line(self) -> tuple[float, float]:
        """Seconds of a step without tokens, and of each token."""
        apart = self._tokens - self._rows
        slower_s = self._prefill_s - self.step_s
        if apart < ROUND_TOKENS or slower_s <= 0:
            return 0.0, self._prefill_s / self._tokens
        token_s = slower_s / apart
        return max(0.0, self.step_s - token_s * self._rows), token_s


def _mean(old: float, new: float) -> float:
    return new if not old else 0.75 * old + 0.25 * new


class Batch:
    """All rows of an engine and its prompt cache. Belongs to one thread, as all of MLX does.

    Args:
        model: a model of mlx-lm.
        sampler: draws for all rows.
        prefill_step_tokens: the most prompt tokens, over all rows, that delay a decode step.
        prompt_cache_bytes: the most that cached prompts may take; 0 keeps none.
        ahead: whether the device works on its own. MLX's CPU backend does so for a few operations only: there, a step that
            is launched before the last one is read delays its tokens by nearly a whole step, and gains nothing.
    """

    def __init__(
        self,
        model: Module,
        sampler: BatchSampler,
        *,
        prefill_step_tokens: int,
        prompt_cache_bytes: int,
        ahead: bool,
    ) -> None:
        self._model = model
        self._sampler = sampler
        self._step_tokens = prefill_step_tokens
        self._prompts = LRUPromptCache(MOST_PROMPTS, prompt_cache_bytes)
        self._most_prompt_bytes = prompt_cache_bytes
        self._trimmable = can_trim_prompt_cache(make_prompt_cache(model))
        self._uids: set[int] = set()
        self._queue: list[tuple[_Row, list[Any]]] = []
        self._prefilling = _Prefilling([], [])
        self._ahead = ahead
        self._decoding = _Decoding(model, sampler, ahead=ahead)
        self._pace = _Pace()
        self._stepped_at: float | None = None
        self._since_join = 0
        self.prefilled_tokens = 0

    def insert(self, request: Request) -> int:
        """Add a row for the request's prompt and ids; returns how many of its tokens the prompt cache holds."""
        tokens = request.prompt + request.ids
        self._uids.add(request.uid)
        self._sampler.add(request.uid, request.submit.sampling, request.prompt, request.ids)
        cache, cached = self._fetch(tokens)
        row = _Row(request.uid, tokens, request.limit - len(request.ids), cached)
        self._queue.append((row, cache))
        return cached

    def decode(self) -> list[Draw]:
        """One token for each row that had a step in flight."""
        if not self._decoding.rows:
            self._stepped_at = None
            return []
        draws = self._decoding.step()
        now = time.perf_counter()
        if self._stepped_at is not None and draws:
            self._pace.stepped(len(draws), now - self._stepped_at)
        self._stepped_at = now
        return draws

    def prefill(self) -> None:
        """Compute one bounded step of the prompts that are not complete, then launch a decode step if none is in flight."""
        self._since_join += 1
        if not self._holds():
            self._fill_lanes(self._bounds()[0])
        self._promote()
        if self._prefilling.rows:
            self._compute_prompts()
            self._promote()
        if self._decoding.rows and not self._decoding.in_flight:
            self._decoding.launch()

    def _compute_prompts(self) -> None:
        started = time.perf_counter()
        counts = plan(self._prefilling.todo(), *self._bounds())
        self._prefilling.compute(self._model, counts)
        self.prefilled_tokens += sum(counts)
        self._pace.prefilled(
            max(counts) * len(counts), time.perf_counter() - started, beside_a_step=self._decoding.in_flight
        )
        self._stepped_at = None

    def remove(self, uids: Sequence[int], *, keep: bool) -> None:
        """Take rows out, in any state; ``keep`` puts what was computed of them into the prompt cache."""
        gone = set(uids)
        self._queue = [(row, cache) for row, cache in self._queue if row.uid not in gone]
        for group in (self._prefilling, self._decoding):
            left = [index for index, row in enumerate(group.rows) if row.uid not in gone]
            if len(left) == len(group.rows):
                continue
            if keep:
                for index, row in enumerate(group.rows):
                    if row.uid in gone:
                        self._store(group, index)
            group.keep(left)
        for uid in uids:
            self._uids.remove(uid)
            self._sampler.remove(uid)

    def shares_prefill(self, request: Request) -> bool:
        """Whether a prompt that is being computed has a prefix in common that is worth waiting for."""
        if not self._shares:
            return False
        tokens = request.prompt + request.ids
        for row in (*(row for row, _ in self._queue), *self._prefilling.rows):
            shared = common_prefix(row.tokens, tokens)
            if shared >= SHARED_TOKENS:
                gained = shared - self._fetch(tokens)[1]
                if gained >= SHARED_TOKENS and len(row.tokens) - row.computed <= 2 * gained:
                    return True
        return False

    @property
    def step_s(self) -> float:
        """What a decode step has taken lately; 0 before the first one."""
        return self._pace.step_s

    @property
    def prompt_cache_bytes(self) -> int:
        """What the cached prompts take."""
        return int(self._prompts.nbytes)

    def limit_prompt_cache(self, most_bytes: int) -> None:
        """Bound the cached prompts by this too, from now on."""
        self._prompts.max_bytes = max(0, min(most_bytes, self._most_prompt_bytes))
        self._prompts.trim_to(n_bytes=self._prompts.max_bytes)

    def reset(self) -> None:
        """Drop all rows and cached prompts: after a failed step nothing that it touched can be trusted."""
        for uid in self._uids:
            self._sampler.remove(uid)
        self._uids.clear()
        self._queue = []
        self._prefilling = _Prefilling([], [])
        self._decoding = _Decoding(self._model, self._sampler, ahead=self._ahead)
        self._prompts.trim_to(n_sequences=0)
        self._stepped_at = None
        mx.clear_cache()

    def _bounds(self) -> tuple[int, int]:
        """Tokens that a prefill step should compute, and may compute at the most, over all rows."""
        if not self._decoding.rows:
            return IDLE_FACTOR * self._step_tokens, IDLE_FACTOR * self._step_tokens
        crowd = (len(self._queue) + len(self._prefilling.rows)) / len(self._decoding.rows)
        return self._pace.tokens(PREFILL_STEPS * max(1.0, crowd), self._step_tokens), self._step_tokens

    def _holds(self) -> bool:
        """Whether queued rows wait for more to come: rows that join one by one cost a read of all weights each."""
        few = len(self._queue) < len(self._decoding.rows)
        return few and not self._prefilling.rows and self._since_join <= HOLD_STEPS

    def _fill_lanes(self, tokens: int) -> None:
        """Let queued rows join the prefill: a long prompt must not hold up all short ones behind it."""
        lanes = len(self._prefilling.rows)
        longest = max(self._prefilling.todo(), default=0)
        count = 0
        for row, _ in self._queue:
            longest = max(longest, len(row.tokens) - 1 - row.computed)
            if lanes and (lanes + 1) * min(longest, LANE_TOKENS) > tokens:
                break
            lanes, count = lanes + 1, count + 1
        joining, self._queue = self._queue[:count], self._queue[count:]
        if joining:
            self._since_join = 0
            rows, caches = zip(*joining, strict=True)
            self._prefilling.join(_Prefilling.merge(list(rows), list(caches)))

    def _promote(self) -> None:
        ready = self._prefilling.split_ready()
        if ready.rows:
            self._decoding.join(ready)

    def _fetch(self, tokens: list[int]) -> tuple[list[Any], int]:
        """A cache for the longest known prefix, and its length. A row that decodes gives a copy of its own if it helps."""
        cache, length = self._fetch_stored(tokens)
        shared = [common_prefix(row.tokens[: row.computed], tokens) for row in self._decoding.rows]
        if self._shares and max(shared, default=0) >= length + SHARED_TOKENS:
            self._store(self._decoding, shared.index(max(shared)))
            cache, length = self._fetch_stored(tokens)
        return cache, length

    def _fetch_stored(self, tokens: list[int]) -> tuple[list[Any], int]:
        """The last token is decoding's input, and so never in a cache that is handed out."""
        cache, rest = self._prompts.fetch_nearest_cache("", tokens)
        if not rest and can_trim_prompt_cache(cache):
            trim_prompt_cache(cache, 1)
            rest = tokens[-1:]
        elif not rest:
            cache, rest = self._prompts.fetch_nearest_cache("", tokens[:-1])
            rest = [*rest, tokens[-1]]
        return (make_prompt_cache(self._model) if cache is None else cache), len(tokens) - len(rest)

    @property
    def _shares(self) -> bool:
        return bool(self._trimmable and self._prompts.max_bytes > 0)

    def _store(self, group: _Rows, index: int) -> None:
        size = sum(layer.nbytes for layer in group.cache) // len(group.rows)
        if size > self._prompts.max_bytes:
            return
        self._prompts.trim_to(n_bytes=self._prompts.max_bytes - size)
        row = group.rows[index]
        self._prompts.insert_cache("", row.tokens[: row.computed], group.extract(index))


def plan(todo: list[int], target: int, most: int) -> list[int]:
    """How many tokens of each row one prefill step computes, for about ``target`` and never over ``most`` in all.

    Rows are padded to the longest, so they get equal shares. A share is stretched where that saves another step for a
    few last tokens, which costs as much as a whole one.
    """
    share = max(1, target // len(todo))
    longest = max(todo)
    if longest <= STRETCH * share and longest * len(todo) <= most:
        share = longest
    return [min(share, left) for left in todo]


def common_prefix(left: list[int], right: list[int]) -> int:
    """How many tokens two sequences begin with alike."""
    if left[:SHARED_TOKENS] != right[:SHARED_TOKENS]:
        return sum(
            1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left[:SHARED_TOKENS], right, strict=False))
        )
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))
