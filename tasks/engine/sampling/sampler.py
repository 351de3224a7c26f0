"""Drawing one token for each row of a batch, each by its own parameters, in a few calls for all of them.

Nothing here waits for a device that works on its own: penalties count tokens that the host has not seen yet, so the next step
can be launched before this one is done. The distribution is that of ``mlx_lm.sample_utils.make_sampler``: top_p, min_p and top_k
choose by the probabilities at temperature 1, then the temperature shapes the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, cast

import mlx.core as mx
import numpy as np

from tasks.engine.constraint import masks
from tasks.engine.constraint.masks import Filling
from tasks.engine.generation.runner import Draw
from tasks.engine.sampling import drawing
from tasks.engine.sampling.adjustments import Biased, Constrained, Counted, Repeating
from tasks.engine.sampling.barred import NONE_BARRED
from tasks.engine.sampling.chain import Chain, places
from tasks.engine.sampling.choice import Drawing
from tasks.engine.sampling.row import Entry, Row
from tasks.engine.sampling.scores import Asking
from tasks.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from tasks.engine.constraint.grammar import Grammar
    from tasks.engine.sampling.barred import Barred
    from tasks.engine.sampling.scores import Scores
    from tasks.messages.engine import Sampling


def check_sampling(sampling: Sampling, vocabulary_tokens: int) -> None:
    """Check fields that depend on the model; ``vocabulary_tokens`` is the width of its logits.

    Raises:
        InvalidRequest: ``logit_bias`` names a token that the model does not have.
    """
    for token_id in sampling.logit_bias:
        if not 0 <= token_id < vocabulary_tokens:
            raise InvalidRequest(f"logit_bias: no token {token_id}, the model's ids are 0 to {vocabulary_tokens - 1}")


@dataclass(slots=True, frozen=True)
class Drawn:
    """One token for each row of a step, ``[rows]``, and log-probabilities where rows asked, all still on the device.

    ``sound`` says of each row whether its logits were numbers: the token of another one means nothing. Where rows were drafted
    for, there is a chain for each, and a token for each row of each chain, in the order of :func:`places`.
    """

    tokens: mx.array
    sound: mx.array
    scores: Scores | None = None
    chains: Sequence[Chain] = ()

    def launch(self) -> None:
        """Let the device begin."""
        mx.async_eval(self._arrays())  # type: ignore[no-untyped-call]  # mlx's own stub says so

    def read(self, uids: Sequence[int]) -> list[Draw]:
        """Wait for the device, once, and return what the rows drew; ``uids`` names them in order."""
        mx.eval(self._arrays())
        logprobs = {} if self.scores is None else dict(self.scores.read())
        tokens, sound = cast("list[int]", self.tokens.tolist()), cast("list[bool]", self.sound.tolist())
        return [
            Draw(uid, token, ok, logprobs.get(place))
            for place, (uid, token, ok) in enumerate(zip(uids, tokens, sound, strict=True))
        ]

    def _arrays(self) -> list[mx.array]:
        arrays = [self.tokens, self.sound]
        return arrays if self.scores is None else [*arrays, self.scores.ids, self.scores.values]


class BatchSampler:
    """One sampling call for the whole batch, with parameters of its own for each row.

    ``vocabulary_tokens`` is the width of the model's logits, and ``text`` names a token in log-probabilities. A seeded
    row's draw k depends on (seed, k) and its logits alone, on every machine; other rows draw from ``entropy``. A batch of
    greedy rows costs one argmax. ``barred`` are the tokens that the model's authors let it not say. ``on_host`` says that the
    device does not work on its own: then numpy masks logits and finds the greatest, in a tenth of the time.

    Presence and frequency penalties count the tokens generated so far and not the prompt, as OpenAI's. The repetition
    penalty looks at the last ``repetition_context_size`` tokens of prompt and answer, as mlx-lm's. Tokens that tie with
    the last of ``top_k`` are kept. Log-probabilities are taken after bias, penalties and grammar and before temperature and
    filters, as mlx-lm's.
    """

    def __init__(
        self,
        vocabulary_tokens: int,
        text: Callable[[int], str],
        *,
        entropy: Random | None = None,
        barred: Barred = NONE_BARRED,
        on_host: bool = False,
    ) -> None:
        self._on_host = on_host
        self._vocabulary_tokens = vocabulary_tokens
        self._barred = barred.within(vocabulary_tokens)
        self._text = text
        self._entropy = entropy or Random()
        self._rows: dict[int, Row] = {}
        self._plan = _Plan([])
        self._filling = Filling(vocabulary_tokens)

    def add(
        self, uid: int, sampling: Sampling, prompt: list[int], generated: list[int], grammar: Grammar | None = None
    ) -> None:
        """Let a row in. ``generated`` are the ids of an earlier attempt, so the next draw's position is their number, and its
        grammar goes on behind them.

        Raises:
            InvalidRequest: see :func:`check_sampling`.
        """
        check_sampling(sampling, self._vocabulary_tokens)
        row = self._rows[uid] = Row(uid, sampling, prompt, generated, self._vocabulary_tokens, self._barred)
        row.matcher = grammar.matcher(generated) if grammar is not None else None

    def remove(self, uid: int) -> None:
        """Forget a row."""
        del self._rows[uid]
        self._plan = _Plan([])

    def is_constrained(self, uids: Sequence[int]) -> bool:
        """Whether a grammar bounds one of these rows: then their last draws have to be read before the next ones are made."""
        return any(self._rows[uid].matcher is not None for uid in uids)

    def read(self, drawn: Drawn, uids: Sequence[int]) -> list[Draw]:
        """Return the tokens that these rows drew, one or more of each, and advance their grammars; waits for the device."""
        if not drawn.chains:
            return [self._advanced(draw) for draw in drawn.read(uids)]
        order = places([len(chain.rows) for chain in drawn.chains])
        draws: list[list[Draw]] = [[] for _ in uids]
        for (row, _), draw in zip(order, drawn.read([uids[row] for row, _ in order]), strict=True):
            draws[row].append(draw)
        return [draw for chain, along in zip(drawn.chains, draws, strict=True) for draw in self._accepted(chain, along)]

    def _accepted(self, chain: Chain, draws: list[Draw]) -> list[Draw]:
        uid = draws[0].uid
        if uid not in self._rows:
            return draws[:1]
        self._rows[uid], counted = chain.accept(draws)
        return counted

    def _advanced(self, draw: Draw) -> Draw:
        row = self._rows.get(draw.uid)
        return draw if row is None else row.advanced(draw)

    def is_led(self, uid: int) -> bool:
        """Return whether a grammar predicts tokens of the row."""
        row = self._rows[uid]
        return row.matcher is not None and not row.is_penalised

    def expected(self, uid: int, most: int) -> list[int]:
        """The row's next tokens, at most so many, where its grammar leads to them."""
        matcher = self._rows[uid].matcher
        return matcher.expected(most) if matcher is not None and self.is_led(uid) else []

    def allowed(self, uid: int, token_ids: list[int]) -> list[int]:
        """As many of these tokens, from the first on, as may be a draft for the row."""
        row = self._rows[uid]
        if row.is_penalised:
            return []
        return token_ids if row.matcher is None else row.matcher.allowed(token_ids)

    def begin_masks(self, uids: Sequence[int]) -> None:
        """Fill the masks of the next draw of these rows, whose last draws were read, while their logits are computed."""
        self._begin([self._rows[uid] for uid in uids])

    def sample(self, uids: Sequence[int], logits: mx.array) -> Drawn:
        """Draw the next token of these rows from their logits, ``[rows, vocabulary_tokens]`` in any precision."""
        return self._sample([self._rows[uid] for uid in uids], logits)

    def draft(self, uids: Sequence[int], drafts: Sequence[Sequence[int]]) -> list[Chain]:
        """The chains of these rows' drafts, whose masks are filled while their logits are computed."""
        chains = [Chain.of(self._rows[uid], draft) for uid, draft in zip(uids, drafts, strict=True)]
        self._begin(_along(chains))
        return chains

    def sample_drafted(self, chains: Sequence[Chain], logits: mx.array) -> Drawn:
        """Draw after each of the first i tokens of each row's draft: logits are in the order of :func:`places`."""
        return replace(self._sample(_along(chains), logits), chains=chains)

    def _begin(self, rows: list[Row]) -> None:
        self._filling.begin([row.matcher for row in rows if row.matcher is not None])

    def _sample(self, rows: list[Row], logits: mx.array) -> Drawn:
        plan = self._plan_for(rows)
        if self._on_host:
            logits, best, sound = self._choose_on_host(plan, logits)
        else:
            if plan.adjusts or not plan.is_argmax:
                logits = plan.adjust(logits.astype(mx.float32), self._filling)
            best = mx.argmax(logits, axis=-1)
            sound = drawing.are_numbers(logits, best)
        tokens = best if plan.random is None else plan.random.draw(logits, best, self._entropy)
        for index, row in enumerate(plan.rows):
            row.take(Entry(tokens, index))
        if plan.asking is None:
            return Drawn(tokens, sound)
        return Drawn(tokens, sound, plan.asking.score(logits, best, tokens, self._text))

    def _choose_on_host(self, plan: _Plan, logits: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        """The adjusted logits, the greatest of each row, and whether it is a number."""
        logits = logits.astype(mx.float32)
        mx.eval(logits)
        host = np.asarray(logits)
        if plan.adjusts:
            with np.errstate(over="ignore", invalid="ignore"):  # such a row is found out below
                host = plan.adjust_on_host(host.copy(), self._filling)
            if not plan.is_argmax:
                logits = mx.array(host)
        best = host.argmax(axis=-1)
        sound = np.isfinite(host[np.arange(len(host)), best])
        return logits, mx.array(best.astype(np.uint32)), mx.array(sound)

    def _plan_for(self, rows: list[Row]) -> _Plan:
        if self._plan.begins or self._plan.rows != rows:
            self._plan = _Plan(rows)
        return self._plan


class _Plan:
    """A plan to sample these rows together: the computations that each needs, with their parameters on the device."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows
        self.begins = any(row.begins_otherwise for row in rows)
        self.biased = Biased.where(rows)
        self.penalised = [part for part in (Repeating.where(rows), Counted.where(rows)) if part is not None]
        self.constrained = Constrained.where(rows)
        self.random = Drawing.where(rows)
        self.asking = Asking.where(rows)

    @property
    def adjusts(self) -> bool:
        """Whether logits are changed before a token is chosen."""
        return self.biased is not None or bool(self.penalised) or self.constrained is not None

    @property
    def is_argmax(self) -> bool:
        """Whether nothing but each row's greatest logit is asked for."""
        return self.random is None and self.asking is None

    def adjust(self, logits: mx.array, filling: Filling) -> mx.array:
        """Apply bias and penalties, in mlx-lm's order, and then the masks of grammars."""
        if self.biased is not None:
            logits = self.biased.into(logits, self.biased.adjust(self.biased.of(logits)))
        logits = self._penalise(logits)
        if (bound := self.constrained) is not None:
            logits = bound.into(logits, masks.apply(bound.of(logits), filling.masks(bound.matchers)))
        return logits

    def adjust_on_host(self, logits: npt.NDArray[np.float32], filling: Filling) -> npt.NDArray[np.float32]:
        """The same; the logits that are given may be changed."""
        if self.biased is not None:
            self.biased.adjust_on_host(logits)
        if self.penalised:
            logits = np.array(self._penalise(mx.array(logits)))
        if self.constrained is not None:
            masks.apply_on_host(logits, self.constrained.places, filling.masks(self.constrained.matchers))
        return logits

    def _penalise(self, logits: mx.array) -> mx.array:
        for part in self.penalised:
            logits = part.into(logits, part.adjust(part.of(logits)))
        return logits


def _along(chains: Sequence[Chain]) -> list[Row]:
    """The rows of these chains, in the order of :func:`places`."""
    return [chains[row].rows[depth] for row, depth in places([len(chain.rows) for chain in chains])]
