"""Whether a loaded model computes a batch of rows as it computes single rows: tried, because mlx-lm's code may not.

A padded row may see its padding (recurrent states, windows), its neighbours' masks (attention that is computed by hand) or
their positions; the answers are then wrong without an error, or a step raises. So a few rows go through the real batch, and
their logits are compared with those of one row alone. All rows are beginnings of one sequence and are made to continue along
it, so that one call for that sequence (:mod:`tasks.engine.model.reference`) gives every logit to compare with.
docs/models.md has the findings for each model.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache

from tasks.engine.failure import first_line, ran_out_of_memory
from tasks.engine.model.batching import slots
from tasks.engine.model.batching.batch import Batch
from tasks.engine.model.batching.stepping import Stepping
from tasks.engine.model.reference import SEQUENCE_TOKENS, Reference
from tasks.engine.sampling.sampler import Drawn
from tasks.messages.engine import Sampling

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlx.nn.layers.base import Module

    from tasks.engine.constraint.grammar import Grammar
    from tasks.engine.generation.runner import Draw
    from tasks.engine.sampling.sampler import BatchSampler
    from tasks.messages.load import Batching

logger = logging.getLogger(__name__)

#: Prompts of the rows: two that need a prefill, and two that do not, so that prefill and decode have other numbers of rows.
ROWS = ((9, 4, 1, 1),)
#: Where a state is kept of the last few tokens, rows join others whose prompts are too short to fill it; this takes two steps
#: more, for the few models that have one.
ROWS_WITH_STATE = ((9, 4), (2, 1))
#: A difference of logits, as a share of their own deviation, that rounding explains in single precision, and in 16 bits.
ROUNDING, ROUNDING_16 = 2e-3, 0.03
#: Where a difference is larger, how many times that of two right ways to compute one row it may be. Experts that are chosen
#: by a hair make more of a rounding error than other layers.
NOISE_FACTOR = 3.0
#: Logits that hardly differ from each other are those of no real model.
SMALLEST_SPREAD = 1e-12


@dataclass(slots=True, frozen=True)
class BatchSupport:
    """The way to serve a model, why not a quicker one (empty for the quickest), and the width of its logits.

    ``slots`` says that its padded rows can lie in slots.
    """

    batching: Batching
    why: str
    vocabulary_tokens: int
    slots: bool = False

    @classmethod
    def read(cls, written: Mapping[str, Any] | None) -> BatchSupport | None:
        """Read what :func:`dataclasses.asdict` made of one; ``None`` for anything else."""
        match written:
            case {
                "batching": "padded" | "equal" | "apart" as batching,
                "why": str(why),
                "vocabulary_tokens": int(tokens),
                "slots": bool(slots_),
            } if tokens > 0:
                return cls(batching, why, tokens, slots_)
        return None


def try_out(model: Module, why_apart: str = "", reference: Reference | None = None) -> BatchSupport:
    """Find the quickest way to serve this model with the same results as for a row alone.

    Args:
        model: a model of mlx-lm.
        why_apart: why its rows have to be computed one by one, where short ones do not show it.
        reference: its results for a row alone, where they are known.

    Raises:
        Exception: the model's error for a row alone, or an error that means that memory ran out.
    """
    trial = _Trial(model, reference or Reference(model))
    why = why_apart or ("" if trial.can_merge else "its caches cannot be joined")
    ways: list[tuple[Batching, bool]] = [] if why else [("padded", False), ("equal", False)]
    if ways and trial.fits_slots:
        ways.insert(0, ("padded", True))
    for batching, in_slots in ways:
        try:
            difference = trial.difference(batching, in_slots=in_slots)
        except Exception as error:
            if ran_out_of_memory(error):
                raise
            logger.debug("rows of %s raise", batching, exc_info=True)
            why = why or ("" if in_slots else f"rows beside each other raise {first_line(error)}")
            continue
        if difference <= trial.rounding(batching) or difference <= NOISE_FACTOR * trial.difference("apart"):
            return BatchSupport(batching, why, trial.vocabulary_tokens, in_slots)
        if not in_slots:
            why = why or f"rows beside each other differ from single ones by {difference:.2g} of the logits' deviation"
    return BatchSupport("apart", why, trial.vocabulary_tokens)


class _Trial:
    """Rows of a model in a batch, beside the logits of their sequence alone."""

    def __init__(self, model: Module, reference: Reference) -> None:
        self._model = model
        self.vocabulary_tokens = reference.vocabulary_tokens
        cache = make_prompt_cache(model)
        self.can_merge = all(hasattr(layer, "merge") for layer in cache)
        self.fits_slots = slots.fit(cache)
        self._has_state = not all(hasattr(layer, "keys") for layer in cache)
        self._sequence, self._alone = reference.sequence, reference.logits
        arrays = cast("list[tuple[str, mx.array]]", tree_flatten(model.parameters()))
        self._halved = any(array.dtype in (mx.float16, mx.bfloat16) for _, array in arrays)

    def rounding(self, batching: Batching) -> float:
        """Return the difference that rounding explains: a small one for a padded state, where an error is small at first."""
        return ROUNDING_16 if self._halved and not (self._has_state and batching == "padded") else ROUNDING

    def difference(self, batching: Batching, *, in_slots: bool = False) -> float:
        """The largest difference to a row alone of any row and step, as a share of the logits' deviation."""
        follower = Follower()
        batch = Batch(
            self._model,
            cast("BatchSampler", follower),
            Stepping(batching=batching, slots=in_slots),
            prefill_step_tokens=SEQUENCE_TOKENS,
            prompt_cache_bytes=0,
        )
        rows = 0
        for lengths in ROWS_WITH_STATE if self._has_state else ROWS:
            for length in lengths:
                follower.follow(rows, self._sequence)
                batch.insert(rows, self._sequence[:length], [], SEQUENCE_TOKENS, Sampling())
                rows += 1
            while not follower.steps or len(follower.steps[-1].uids) < rows:
                batch.decode()
                batch.prefill()
        return max(self._difference(step) for step in follower.steps)

    def _difference(self, step: Step) -> float:
        alone = self._alone[mx.array(step.places)]
        finite = mx.isfinite(alone)  # some models bar tokens by minus infinity
        count = mx.maximum(finite.sum(axis=-1), 1)

        def mean(values: mx.array) -> mx.array:
            return mx.where(finite, values, 0.0).sum(axis=-1) / count

        apart = step.logits.astype(mx.float32) - alone
        spread = mean((alone - mean(alone)[:, None]) ** 2)
        share = mx.sqrt(mean((apart - mean(apart)[:, None]) ** 2) / mx.maximum(spread, SMALLEST_SPREAD))
        worst = cast("float", share.max().item())
        return worst if math.isfinite(worst) else math.inf


@dataclass(slots=True, frozen=True)
class Step:
    """One step's logits, ``[rows, vocabulary]``, and after which place of its sequence each row's came."""

    uids: list[int]
    places: list[int]
    logits: mx.array


class Follower:
    """In a sampler's place: has each row continue along a sequence of its own, and keeps the logits of each step."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._sequences: dict[int, list[int]] = {}
        self._lengths: dict[int, int] = {}

    def follow(self, uid: int, sequence: list[int]) -> None:
        """Announce a row, before it comes."""
        self._sequences[uid] = sequence

    def add(
        self, uid: int, _sampling: Sampling, prompt: list[int], generated: list[int], _grammar: Grammar | None
    ) -> None:
        """Let a row in."""
        self._lengths[uid] = len(prompt) + len(generated)

    def remove(self, uid: int) -> None:
        """Let a row go."""
        del self._lengths[uid]

    def is_constrained(self, _uids: Sequence[int]) -> bool:
        """No row is."""
        return False

    def is_led(self, _uid: int) -> bool:
        """No row is."""
        return False

    def expected(self, _uid: int, _most: int) -> list[int]:
        """Nothing."""
        return []

    def allowed(self, _uid: int, _token_ids: list[int]) -> list[int]:
        """Nothing."""
        return []

    def read(self, drawn: Drawn, uids: Sequence[int]) -> list[Draw]:
        """Return the draws of the rows."""
        return drawn.read(uids)

    def sample(self, uids: Sequence[int], logits: mx.array) -> Drawn:
        """Each row's next token, whatever its logits say."""
        self.steps.append(Step(list(uids), [self._lengths[uid] - 1 for uid in uids], logits))
        tokens = [self._sequences[uid][self._lengths[uid]] for uid in uids]
        for uid in uids:
            self._lengths[uid] += 1
        return Drawn(mx.array(tokens, mx.uint32), mx.array([True] * len(tokens)))
