"""Drawing one token for each row of a batch, each by its own parameters, in a few calls for all of them.

Nothing here waits for the device: penalties count tokens that the host has not seen yet, so the next step can be launched
before this one is done. The distribution is that of ``mlx_lm.sample_utils.make_sampler``: top_p, min_p and top_k choose by
the probabilities at temperature 1, then the temperature shapes what is left.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from itertools import chain
from random import Random
from typing import TYPE_CHECKING, Self, cast

import mlx.core as mx
import numpy as np

from tasks.engine.backend import Draw
from tasks.engine.constraint import masks
from tasks.engine.sampling import drawing
from tasks.errors import InvalidRequest
from tasks.messages.engine import TokenLogprob

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

    from tasks.engine.constraint.grammar import Grammar, Matcher
    from tasks.messages.engine import Sampling

#: Below this a temperature is 0: it tells logits apart that single precision does not.
LOWEST_TEMPERATURE = 1e-5
#: The inverse of the highest one: 0 in single precision would make infinitely unlikely tokens undefined.
LOWEST_SHARPNESS = 1e-30
#: What a repetition penalty is bounded by: a stronger one changes nothing but that logits overflow.
MOST_REPETITION_PENALTY = 1e6
#: OpenAI's figure for a token that cannot come. JSON has no infinity.
LOWEST_LOGPROB = -9999.0


def check_sampling(sampling: Sampling, vocabulary_tokens: int) -> None:
    """Check what only the model can tell; ``vocabulary_tokens`` is the width of its logits.

    Raises:
        InvalidRequest: ``logit_bias`` names a token that the model does not have.
    """
    for token_id in sampling.logit_bias:
        if not 0 <= token_id < vocabulary_tokens:
            raise InvalidRequest(f"logit_bias: no token {token_id}, the model's ids are 0 to {vocabulary_tokens - 1}")


@dataclass(slots=True, frozen=True)
class Drawn:
    """One token for each row of a step, ``[rows]``, and log-probabilities where rows asked, all still on the device.

    ``sound`` says of each row whether its logits were numbers: the token of another one means nothing.
    """

    tokens: mx.array
    sound: mx.array
    scores: _Scores | None = None

    def launch(self) -> None:
        """Let the device begin."""
        mx.async_eval(self._arrays())  # type: ignore[no-untyped-call]  # mlx's own stub says so

    def read(self, uids: Sequence[int]) -> list[Draw]:
        """Wait for the device, once, and return what the rows drew; ``uids`` names them in order."""
        mx.eval(self._arrays())
        logprobs = {} if self.scores is None else dict(self.scores.read())
        tokens, sound = cast("list[int]", self.tokens.tolist()), cast("list[bool]", self.sound.tolist())
        return [Draw(uid, token, ok, logprobs.get(uid)) for uid, token, ok in zip(uids, tokens, sound, strict=True)]

    def _arrays(self) -> list[mx.array]:
        arrays = [self.tokens, self.sound]
        return arrays if self.scores is None else [*arrays, self.scores.ids, self.scores.values]


class BatchSampler:
    """One sampling call for the whole batch, with parameters of its own for each row.

    ``vocabulary_tokens`` is the width of the model's logits, and ``text`` names a token in log-probabilities. A seeded
    row's draw k depends on (seed, k) and its logits alone, on every machine; other rows draw from ``entropy``. A batch of
    greedy rows costs one argmax.

    Presence and frequency penalties count the tokens generated so far and not the prompt, as OpenAI's. The repetition
    penalty looks at the last ``repetition_context_size`` tokens of prompt and answer, as mlx-lm's. Tokens that tie with
    the last of ``top_k`` are kept. Log-probabilities are taken after bias, penalties and grammar and before temperature and
    filters, as mlx-lm's.
    """

    def __init__(self, vocabulary_tokens: int, text: Callable[[int], str], *, entropy: Random | None = None) -> None:
        self._vocabulary_tokens = vocabulary_tokens
        self._text = text
        self._entropy = entropy or Random()
        self._rows: dict[int, _Row] = {}
        self._plan = _Plan([])

    def add(
        self, uid: int, sampling: Sampling, prompt: list[int], generated: list[int], grammar: Grammar | None = None
    ) -> None:
        """Let a row in. ``generated`` are the ids of an earlier attempt, so the next draw's position is their number, and its
        grammar goes on behind them.

        Raises:
            InvalidRequest: see :func:`check_sampling`.
        """
        check_sampling(sampling, self._vocabulary_tokens)
        row = self._rows[uid] = _Row(uid, sampling, prompt, generated, self._vocabulary_tokens)
        row.matcher = grammar.matcher(generated) if grammar is not None else None

    def remove(self, uid: int) -> None:
        """Forget a row."""
        del self._rows[uid]
        self._plan = _Plan([])

    def is_constrained(self, uids: Sequence[int]) -> bool:
        """Whether a grammar bounds one of these rows: then their last draws have to be read before the next ones are made."""
        return any(self._rows[uid].matcher is not None for uid in uids)

    def read(self, drawn: Drawn, uids: Sequence[int]) -> list[Draw]:
        """What these rows drew, with their grammars gone on by it; waits for the device."""
        return [self._advanced(draw) for draw in drawn.read(uids)]

    def _advanced(self, draw: Draw) -> Draw:
        row = self._rows.get(draw.uid)
        if row is None or row.matcher is None:
            return draw
        row.matcher.take(draw.token)
        return replace(draw, complete=row.matcher.complete, fault=row.matcher.error)

    def sample(self, uids: Sequence[int], logits: mx.array) -> Drawn:
        """Draw the next token of these rows from their logits, ``[rows, vocabulary_tokens]`` in any precision."""
        plan = self._plan_for([self._rows[uid] for uid in uids])
        if not plan.is_argmax:
            logits = plan.adjust(logits.astype(mx.float32))
        tokens = best = mx.argmax(logits, axis=-1)
        sound = drawing.are_numbers(logits, best)
        if plan.random is not None:
            tokens = plan.random.draw(logits, best, self._entropy)
        for index, row in enumerate(plan.rows):
            row.take(_Slot(tokens, index))
        if plan.asking is None:
            return Drawn(tokens, sound)
        return Drawn(tokens, sound, plan.asking.score(logits, best, tokens, self._text))

    def _plan_for(self, rows: list[_Row]) -> _Plan:
        if self._plan.rows != rows:
            self._plan = _Plan(rows)
        return self._plan


@dataclass(slots=True, frozen=True)
class _Scores:
    """Ids and natural log-probabilities, ``[rows, 1 + most alternatives]``: the drawn token, then the likeliest ones.

    Of a ``constrained`` row only tokens that its grammar allows are named.
    """

    uids: list[int]
    alternatives: list[int]
    constrained: list[bool]
    ids: mx.array
    values: mx.array
    text: Callable[[int], str]

    def read(self) -> Iterator[tuple[int, TokenLogprob]]:
        ids = cast("list[list[int]]", self.ids.tolist())
        values = cast("list[list[float]]", self.values.tolist())
        for uid, count, constrained, row, scores in zip(
            self.uids, self.alternatives, self.constrained, ids, values, strict=True
        ):
            known = sum(score > -math.inf for score in scores) if constrained else len(scores)
            finite = [max(score, LOWEST_LOGPROB) for score in scores[: min(1 + count, known)]]
            (token_id, logprob), *likeliest = zip(row[: len(finite)], finite, strict=True)
            top = tuple((each, self.text(each), score) for each, score in likeliest)
            yield uid, TokenLogprob(token_id, self.text(token_id), logprob, top)


@dataclass(slots=True, frozen=True)
class _Slot:
    """One row of an array on the device. Rows that stay together share their array, so nothing is copied."""

    array: mx.array
    index: int


def _stack(slots: list[_Slot]) -> mx.array:
    array = slots[0].array
    if len(slots) == len(array) and all(slot.array is array and slot.index == n for n, slot in enumerate(slots)):
        return array
    return mx.stack([slot.array[slot.index] for slot in slots])


class _Row:
    """One request. ``position`` counts its draws, those of earlier attempts included.

    ``counts`` says of each token how often the row generated it, ``seen`` after how many tokens of prompt and answer it
    came last (0: never); ``None`` where no penalty asks. Both lack the ``latest`` token drawn here, which may still be on
    the device alone.
    """

    __slots__ = (
        *("counts", "has_drawn", "latest", "matcher", "position", "prompt_tokens", "sampling", "seen", "uid"),
        "vocabulary",
    )

    def __init__(self, uid: int, sampling: Sampling, prompt: list[int], generated: list[int], vocabulary: int) -> None:
        self.uid = uid
        self.sampling = sampling
        self.vocabulary = vocabulary
        self.prompt_tokens = len(prompt)
        self.position = len(generated)
        self.has_drawn = False
        self.latest = _Slot(mx.zeros(1, dtype=mx.uint32), 0)
        self.matcher: Matcher | None = None
        self.counts: _Slot | None = None
        self.seen: _Slot | None = None
        if sampling.presence_penalty or sampling.frequency_penalty:
            self.counts = _Slot(_dense(Counter(generated), vocabulary), 0)
        if sampling.repetition_penalty != 1:
            places = {token_id: n for n, token_id in enumerate(chain(prompt, generated), start=1)}
            self.seen = _Slot(_dense(places, vocabulary), 0)

    @property
    def context_tokens(self) -> int:
        return self.prompt_tokens + self.position

    @property
    def is_random(self) -> bool:
        return self.sampling.temperature >= LOWEST_TEMPERATURE and self.sampling.top_k != 1

    @property
    def is_ranked(self) -> bool:
        return 0 < self.sampling.top_k < self.vocabulary

    @property
    def is_nucleus(self) -> bool:
        return self.sampling.top_p < 1 and not self.is_ranked

    def take(self, token: _Slot) -> None:
        self.latest = token
        self.has_drawn = True
        self.position += 1

    def random_words(self, entropy: Random) -> npt.NDArray[np.uint32]:
        seed = entropy.getrandbits(64) if self.sampling.seed is None else self.sampling.seed
        return drawing.random_words(seed, self.position, drawing.numbers_for(self.vocabulary))


def _dense(numbers: dict[int, int], vocabulary: int) -> mx.array:
    """A row of zeros but for these, ``[1, vocabulary]``."""
    row = mx.zeros((1, vocabulary))
    if numbers:
        row[0, mx.array(list(numbers))] = mx.array(list(numbers.values()), dtype=mx.float32)
    return row


class _Plan:
    """How to sample these rows together: what has to be computed for which, with their parameters on the device."""

    def __init__(self, rows: list[_Row]) -> None:
        self.rows = rows
        adjusting = (_Biased.where(rows), _Repeating.where(rows), _Counted.where(rows), _Constrained.where(rows))
        self.adjustments = [part for part in adjusting if part is not None]
        self.random = _Random.where(rows)
        self.asking = _Asking.where(rows)

    @property
    def is_argmax(self) -> bool:
        return not self.adjustments and self.random is None and self.asking is None

    def adjust(self, logits: mx.array) -> mx.array:
        """Bias and penalties, in mlx-lm's order, and then what a grammar allows."""
        for part in self.adjustments:
            logits = part.into(logits, part.adjust(part.of(logits)))
        return logits


class _Part:
    """Some rows of a batch; ``of`` takes them out of an array over the whole batch, ``into`` puts them back."""

    def __init__(self, rows: list[_Row], chosen: list[int]) -> None:
        self.rows = [rows[index] for index in chosen]
        self.is_all = len(chosen) == len(rows)
        self._index = mx.array(chosen)

    @classmethod
    def where(cls, rows: list[_Row]) -> Self | None:
        """The rows that belong to such a part, or ``None``: then there is nothing to compute."""
        chosen = [index for index, row in enumerate(rows) if cls.takes(row)]
        return cls(rows, chosen) if chosen else None

    @staticmethod
    def takes(row: _Row) -> bool:
        raise NotImplementedError

    def of(self, array: mx.array) -> mx.array:
        return array if self.is_all else array[self._index]

    def into(self, array: mx.array, part: mx.array) -> mx.array:
        if self.is_all:
            return part
        changed = mx.array(array)
        changed[self._index] = part
        return changed

    def column(self, number: Callable[[_Row], float]) -> mx.array:
        """A number for each of these rows, ``[rows, 1]``."""
        return mx.array([[number(row)] for row in self.rows], dtype=mx.float32)

    def latest(self) -> mx.array:
        """The token that each row drew last, ``[rows]``."""
        return _stack([row.latest for row in self.rows])


class _Biased(_Part):
    """Rows with ``logit_bias``."""

    def __init__(self, rows: list[_Row], chosen: list[int]) -> None:
        super().__init__(rows, chosen)
        biases = [(n, *bias) for n, row in enumerate(self.rows) for bias in row.sampling.logit_bias.items()]
        places, ids, values = zip(*biases, strict=True)
        self._places = mx.array(places)
        self._ids = mx.array(ids)
        self._values = mx.array(values, dtype=mx.float32)

    @staticmethod
    def takes(row: _Row) -> bool:
        return bool(row.sampling.logit_bias)

    def adjust(self, logits: mx.array) -> mx.array:
        return logits.at[self._places, self._ids].add(self._values)


class _Repeating(_Part):
    """Rows with a repetition penalty."""

    def __init__(self, rows: list[_Row], chosen: list[int]) -> None:
        super().__init__(rows, chosen)
        self._penalty = self.column(
            lambda row: min(max(row.sampling.repetition_penalty, 1 / MOST_REPETITION_PENALTY), MOST_REPETITION_PENALTY)
        )

    @staticmethod
    def takes(row: _Row) -> bool:
        return row.seen is not None

    def adjust(self, logits: mx.array) -> mx.array:
        places = self.column(lambda row: row.context_tokens if row.has_drawn else 0)[:, 0]
        seen = _stack([row.seen for row in self.rows if row.seen])
        seen = seen.at[mx.arange(len(self.rows)), self.latest()].maximum(places)
        for index, row in enumerate(self.rows):
            row.seen = _Slot(seen, index)
        before = self.column(lambda row: max(0, row.context_tokens - row.sampling.repetition_context_size))
        return drawing.penalise_repeats(logits, seen > before, self._penalty)


class _Counted(_Part):
    """Rows with a presence or frequency penalty."""

    def __init__(self, rows: list[_Row], chosen: list[int]) -> None:
        super().__init__(rows, chosen)
        self._presence = self.column(lambda row: row.sampling.presence_penalty)
        self._frequency = self.column(lambda row: row.sampling.frequency_penalty)

    @staticmethod
    def takes(row: _Row) -> bool:
        return row.counts is not None

    def adjust(self, logits: mx.array) -> mx.array:
        more = self.column(lambda row: row.has_drawn)[:, 0]
        counts = _stack([row.counts for row in self.rows if row.counts])
        counts = counts.at[mx.arange(len(self.rows)), self.latest()].add(more)
        for index, row in enumerate(self.rows):
            row.counts = _Slot(counts, index)
        return drawing.penalise_counts(logits, counts, self._presence, self._frequency)


class _Constrained(_Part):
    """Rows with a grammar."""

    def __init__(self, rows: list[_Row], chosen: list[int]) -> None:
        super().__init__(rows, chosen)
        self._matchers = [row.matcher for row in self.rows if row.matcher is not None]

    @staticmethod
    def takes(row: _Row) -> bool:
        return row.matcher is not None

    def adjust(self, logits: mx.array) -> mx.array:
        return masks.apply(logits, masks.fill(self._matchers, logits.shape[-1]))


class _Random(_Part):
    """Rows whose token is drawn; those of them that are ranked or a nucleus have a floor beside that of ``min_p``."""

    def __init__(self, rows: list[_Row], chosen: list[int]) -> None:
        super().__init__(rows, chosen)
        self._sharpness = self.column(lambda row: max(1 / row.sampling.temperature, LOWEST_SHARPNESS))
        self._min_bits = self.column(lambda row: math.log2(row.sampling.min_p) if row.sampling.min_p else -math.inf)
        self._ranked = _Ranked.where(self.rows)
        self._nucleus = _Nucleus.where(self.rows)
        self._is_cut = bool(self._ranked or self._nucleus or any(row.sampling.min_p for row in self.rows))

    @staticmethod
    def takes(row: _Row) -> bool:
        return row.is_random

    def draw(self, logits: mx.array, best: mx.array, entropy: Random) -> mx.array:
        """The tokens of the whole batch, ``[rows]``: ``best`` for the rows that are not drawn."""
        scores = drawing.bits(self.of(logits), self.of(best))
        if self._is_cut:
            scores = mx.where(scores >= self._floor(scores), scores, -math.inf)
        words = np.stack([row.random_words(entropy) for row in self.rows])
        exponentials = mx.array(drawing.exponentials_of(words))
        return self.into(best, drawing.draw(drawing.weigh(scores * self._sharpness), exponentials))

    def _floor(self, scores: mx.array) -> mx.array:
        floor = self._min_bits
        for part in (self._ranked, self._nucleus):
            if part is not None:
                floor = part.into(floor, mx.maximum(part.of(floor), part.floor(part.of(scores))))
        return floor


class _Ranked(_Part):
    """Rows with ``top_k``, and perhaps ``top_p`` within it."""

    def __init__(self, rows: list[_Row], chosen: list[int]) -> None:
        super().__init__(rows, chosen)
        self._width = max(row.sampling.top_k for row in self.rows)
        self._top_k = self.column(lambda row: row.sampling.top_k)
        self._top_p = None
        if any(row.sampling.top_p < 1 for row in self.rows):
            self._top_p = self.column(lambda row: row.sampling.top_p if row.sampling.top_p < 1 else math.inf)

    @staticmethod
    def takes(row: _Row) -> bool:
        return row.is_ranked

    def floor(self, scores: mx.array) -> mx.array:
        return drawing.ranked_floor(scores, self._width, self._top_k, self._top_p)


class _Nucleus(_Part):
    """Rows with ``top_p`` over the whole vocabulary."""

    def __init__(self, rows: list[_Row], chosen: list[int]) -> None:
        super().__init__(rows, chosen)
        self._top_p = self.column(lambda row: row.sampling.top_p)
        self._tail = self.column(lambda row: math.log2((1 - row.sampling.top_p) / row.vocabulary))

    @staticmethod
    def takes(row: _Row) -> bool:
        return row.is_nucleus

    def floor(self, scores: mx.array) -> mx.array:
        return drawing.nucleus_floor(scores, self._top_p, self._tail)


class _Asking(_Part):
    """Rows that asked for log-probabilities."""

    def __init__(self, rows: list[_Row], chosen: list[int]) -> None:
        super().__init__(rows, chosen)
        self._alternatives = [row.sampling.top_logprobs for row in self.rows]
        self._most = min(max(self._alternatives), self.rows[0].vocabulary)

    @staticmethod
    def takes(row: _Row) -> bool:
        return row.sampling.logprobs

    def score(self, logits: mx.array, best: mx.array, tokens: mx.array, text: Callable[[int], str]) -> _Scores:
        scores = drawing.bits(self.of(logits), self.of(best))
        total = drawing.weigh(scores).sum(axis=-1, keepdims=True)
        ids = self.of(tokens)[:, None]
        values = mx.take_along_axis(scores, ids, axis=-1)
        if self._most:
            likeliest = drawing.likeliest(scores, self._most)
            ids, values = (
                mx.concatenate([a, b[:, ::-1]], axis=-1) for a, b in zip((ids, values), likeliest, strict=True)
            )
        constrained = [row.matcher is not None for row in self.rows]
        uids = [row.uid for row in self.rows]
        return _Scores(uids, self._alternatives, constrained, ids, drawing.logprobs(values, total), text)
