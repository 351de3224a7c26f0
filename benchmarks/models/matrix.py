"""What one model computes for rows in company, beside what mlx-lm computes for each of them alone: logits, step by step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache

from benchmarks.models.drafter import Drafter
from tasks.engine.model.batching.batch import Batch
from tasks.engine.model.batching.slots import fit
from tasks.engine.model.batching.stepping import Stepping
from tasks.engine.model.corrections.architectures import correct
from tasks.engine.model.drafting.worth import Worth
from tasks.engine.model.layout.host import prepare
from tasks.engine.model.layout.host_trial import supports_numpy, supports_prompts
from tasks.engine.model.reference import Reference
from tasks.engine.model.selftest import Follower, try_out
from tasks.messages.engine import Sampling

if TYPE_CHECKING:
    from mlx.nn.layers.base import Module

    from tasks.engine.model.selftest import BatchSupport
    from tasks.engine.sampling.sampler import BatchSampler
    from tasks.messages.load import Batching

#: Prompts longer than this are computed in pieces, and windows are as long.
PIECE_TOKENS = 16
CACHE_BYTES = 1 << 28
#: A larger difference of logits, whose deviation is about 1, is a fault and no rounding.
TOLERANCE = 1e-3
#: No step here has more tokens.
HOST_TOKENS = 256


@dataclass(slots=True, frozen=True)
class Arrival:
    """A request: the turn in which it comes, its tokens: of the prompt, of an earlier attempt, and to come.

    Rows of one ``family`` have their first ``shared`` tokens in common.
    """

    turn: int
    prompt: int
    tokens: int
    given: int = 0
    family: int = -1
    shared: int = 0


#: What happens in a column of the table.
SCENARIOS: dict[str, tuple[Arrival, ...]] = {
    "alone": (Arrival(0, 40, 5),),
    "burst": tuple(Arrival(0, prompt, 4) for prompt in (40, 1, 5, 23, 3, 64)),
    "joins": (
        *(
            Arrival(0, 30, 14),
            Arrival(2, 2, 4),
            Arrival(4, 7, 6),
            Arrival(7, 1, 3),
            Arrival(9, 20, 5),
            Arrival(9, 4, 5),
        ),
        *(Arrival(12, 3, 4), Arrival(13, 50, 3)),
    ),
    "windows": (Arrival(0, 150, 20), Arrival(0, 100, 8), Arrival(3, 20, 25), Arrival(8, 15, 5)),
    "resume": (
        Arrival(0, 20, 6, given=5),
        Arrival(0, 9, 6, given=3),
        Arrival(1, 33, 4, given=1),
        Arrival(2, 1, 5, given=9),
    ),
    "prefix": (
        *(Arrival(0, 100, 3, family=1, shared=80), Arrival(30, 120, 4, family=1, shared=80)),
        *(Arrival(40, 100, 30, family=2, shared=90), Arrival(52, 110, 3, family=2, shared=90)),
        *(Arrival(52, 95, 3, family=2, shared=90), Arrival(54, 130, 3, family=1, shared=80)),
    ),
}


@dataclass(slots=True)
class Finding:
    """How a model is served, why, and the largest difference in each scenario; ``error`` where something was raised.

    ``slots`` says that it is served in slots where drafts are (:mod:`tasks.engine.model.batching.slots`).
    """

    name: str
    batching: Batching | None = None
    why: str = ""
    caches: str = ""
    differences: dict[str, float] = field(default_factory=dict)
    error: str = ""
    slots: bool = False

    @property
    def is_right(self) -> bool:
        """Whether every cell is."""
        return not self.error and all(value <= TOLERANCE for value in self.differences.values())


def examine(name: str, model: Module) -> Finding:
    """Serve a model as an engine would, and compare; errors of the model end up in what is found."""
    finding = Finding(name)
    try:
        why_apart = correct(model)
        on_numpy = _bears_numpy(model)
        support = try_out(model, why_apart)
        finding.batching, finding.why, finding.slots = support.batching, support.why, support.slots
        finding.caches = _caches(make_prompt_cache(model))
        for scenario, arrivals in SCENARIOS.items():
            finding.differences[scenario] = difference(model, support, arrivals)
            if support.slots:
                finding.differences[f"{scenario} in slots"] = difference(model, support, arrivals, slots=True)
        finding.differences["ahead"] = difference(model, support, SCENARIOS["joins"], ahead=True)
        if support.slots:
            for scenario in ("joins", "windows"):
                finding.differences[f"{scenario} with drafts"] = difference(
                    model, support, SCENARIOS[scenario], slots=True, drafts=True
                )
        if support.slots and on_numpy:
            finding.differences |= _on_numpy(model, support)
    except Exception as error:  # noqa: BLE001 - what a model raises is what is found
        finding.error = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
    return finding


def _bears_numpy(model: Module) -> bool:
    """Whether numpy can compute its steps. As at a load that is tried before rows are; the model stays prepared for it."""
    if not fit(make_prompt_cache(model)):
        return False
    reference = Reference(model)
    mx.eval(reference.logits)
    prepare(model)
    bears = supports_numpy(model, reference)
    model.host_prompts = bears and supports_prompts(model, reference)
    return bears


def _on_numpy(model: Module, support: BatchSupport) -> dict[str, float]:
    """The differences where numpy computes all steps, and prompts where the model bears that."""
    model.host_tokens = HOST_TOKENS
    return {
        **{
            f"{scenario} on numpy": difference(model, support, arrivals, slots=True)
            for scenario, arrivals in SCENARIOS.items()
        },
        "joins with drafts on numpy": difference(model, support, SCENARIOS["joins"], slots=True, drafts=True),
    }


def difference(
    model: Module,
    support: BatchSupport,
    arrivals: tuple[Arrival, ...],
    *,
    ahead: bool = False,
    slots: bool = False,
    drafts: bool = False,
) -> float:
    """The largest difference between a row's logits in this company and alone.

    ``drafts`` lets rows in slots have several tokens in a step, of which the last one may be another than the row's.
    """
    sequences = [_sequence(uid, arrival, support.vocabulary_tokens) for uid, arrival in enumerate(arrivals)]
    follower = Drafter(support.vocabulary_tokens) if drafts else Follower()
    batch = Batch(
        model,
        cast("BatchSampler", follower),
        Stepping(batching=support.batching, ahead=ahead, slots=slots, make_worth=_Always if drafts else _Never),
        prefill_step_tokens=PIECE_TOKENS,
        prompt_cache_bytes=CACHE_BYTES,
    )
    left = {uid: arrival.tokens for uid, arrival in enumerate(arrivals)}
    turn = 0
    while left:
        for uid, arrival in enumerate(arrivals):
            if arrival.turn == turn:
                _insert(batch, follower, uid, arrival, sequences[uid])
        for step in (batch.decode, batch.prefill):
            for draw in step():
                left[draw.uid] -= 1
                if not left[draw.uid]:
                    batch.remove([draw.uid], keep=True)
                    del left[draw.uid]
        turn += 1
    return _worst(model, follower, sequences)


class _Always(Worth):
    """Has drafts, whatever they cost."""

    pays = True


class _Never(Worth):
    """Has none."""

    pays = False


def _insert(batch: Batch, follower: Follower, uid: int, arrival: Arrival, sequence: list[int]) -> None:
    follower.follow(uid, sequence)
    known = arrival.prompt + arrival.given
    batch.insert(
        uid, sequence[: arrival.prompt], sequence[arrival.prompt : known], arrival.given + arrival.tokens, Sampling()
    )


def _sequence(uid: int, arrival: Arrival, vocabulary: int) -> list[int]:
    """The row's tokens to its end, and one more, which the last step draws."""
    length = arrival.prompt + arrival.given + arrival.tokens + 1
    own = [(7919 * n + 104729 * (uid + 1)) % vocabulary for n in range(length)]
    shared = [(6007 * n + 15485863 * arrival.family) % vocabulary for n in range(arrival.shared)]
    return [*shared, *own[arrival.shared :]]


def _worst(model: Module, follower: Follower, sequences: list[list[int]]) -> float:
    alone = [model(mx.array([sequence]), cache=make_prompt_cache(model))[0] for sequence in sequences]
    worst = 0.0
    for step in follower.steps:
        expected = mx.stack([alone[uid][place] for uid, place in zip(step.uids, step.places, strict=True)])
        apart = cast("float", mx.abs(step.logits - expected).max().item())
        worst = max(worst, apart if apart == apart else float("inf"))  # noqa: PLR0124 - NaN is no difference at all
    return worst


def _caches(layers: list[Any]) -> str:
    names = {type(layer).__name__.removesuffix("Cache") for layer in layers}
    return ", ".join(sorted(names))
