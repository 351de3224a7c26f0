"""Whether a model's code works on numpy's arrays, and for which steps and prompts they are quicker here."""

from __future__ import annotations

import logging
import math
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import make_prompt_cache

from tasks.engine.model.batching.head import Head
from tasks.engine.model.batching.slots import SlotCaches, fit
from tasks.engine.model.layout.host import prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlx.nn.layers.base import Module

    from tasks.engine.model.kept.verdicts import Verdicts
    from tasks.engine.model.reference import Reference

logger = logging.getLogger(__name__)

#: The tokens of the steps that are tried, the next only if numpy has gained with the one before.
TOKENS = (1, 8, 32, 64)
#: The tokens of the prompt that is tried, where numpy is quicker with the longest step.
PROMPT_TOKENS = 96
#: The number of times that each is timed, in turns with MLX's; its least time counts.
ROUNDS = 2
#: The processor time after which no more tokens are tried.
MOST_S = 2.0
LEAST_GAIN = 1.1
#: A difference of logits, as a share of their largest one, that another order of summing explains.
ROUNDING = 1e-3


def compute_on_host(
    model: Module, reference: Reference, verdicts: Verdicts | None = None, about: object = None
) -> None:
    """Have steps of few tokens, and prompts, computed by numpy, in place, where the model's code allows that and it is quicker.

    A verdict on the same ``about`` spares the trial.
    """
    if not fit(make_prompt_cache(model)):
        return
    about = ("host", about, np.__version__, TOKENS, PROMPT_TOKENS)
    known = verdicts.find(about) if verdicts is not None else None
    tokens, prompts = (known.get("tokens"), known.get("prompts") is True) if known is not None else (None, False)
    if tokens != 0:
        prepare(model)
    if not isinstance(tokens, int):
        tokens = quick_tokens(partial(_least_seconds, model)) if supports_numpy(model, reference) else 0
        prompts = tokens == TOKENS[-1] and supports_prompts(model, reference) and _is_quick_with_prompts(model)
        if verdicts is not None:
            verdicts.keep(about, {"tokens": tokens, "prompts": prompts})
    logger.debug("numpy computes steps of at most %d tokens%s", tokens, ", and prompts" if prompts else "")
    model.host_tokens, model.host_prompts = tokens, prompts


def supports_numpy(model: Module, reference: Reference) -> bool:
    """Whether prepared code computes steps of numpy's arrays right: for rows of unequal lengths, with one token or more."""
    given = reference.sequence

    def logits() -> mx.array:
        caches = SlotCaches.merge([make_prompt_cache(model) for _ in range(2)])
        caches.prefill(Head(model), [given[:2], given[:4]], [])
        return mx.concatenate(
            [
                caches.step(model, mx.array([given[2], given[4]])),
                caches.step_drafted(model, [given[3:5], given[5:7]]),
                caches.step_drafted(model, [given[4:7], given[6:7]]),
            ]
        )

    model.host_tokens, model.host_prompts = TOKENS[-1], False
    try:
        return _are_right(logits, reference, [2, 4, 3, 5, 4, 6, 4, 6, 5, 6])
    finally:
        model.host_tokens = 0


def supports_prompts(model: Module, reference: Reference) -> bool:
    """Return the same for prompts, of unequal lengths and in pieces."""
    given = reference.sequence

    def logits() -> mx.array:
        caches, head = SlotCaches.merge([make_prompt_cache(model) for _ in range(2)]), Head(model)
        caches.prefill(head, [given[:2], given[:4]], [])
        whole = caches.prefill(head, [given[2:7], given[4:6]], [0, 1])
        assert whole is not None
        return mx.concatenate([whole, caches.step(model, mx.array([given[7], given[6]]))])

    model.host_prompts = True
    try:
        return _are_right(logits, reference, [6, 5, 7, 6])
    finally:
        model.host_prompts = False


def _are_right(logits: Callable[[], mx.array], reference: Reference, places: list[int]) -> bool:
    expected = reference.logits[mx.array(places)]
    try:
        difference = mx.where(mx.isfinite(expected), mx.abs(logits() - expected), 0.0).max()
        bound = ROUNDING * mx.where(mx.isfinite(expected), mx.abs(expected), 0.0).max()
        return bool((difference <= bound).item())
    except (ValueError, AttributeError, TypeError, LookupError, RuntimeError):
        logger.debug("the model's code fails with numpy's arrays", exc_info=True)
        return False


def quick_tokens(least_seconds: Callable[[int], tuple[float, float]], tried: Sequence[int] = TOKENS) -> int:
    """Up to how many tokens of a step numpy is quicker; 0 where it is with none of those tried.

    Args:
        least_seconds: of a step of so many tokens, by MLX and by numpy.
        tried: numbers of tokens.
    """
    quick, end = 0, time.process_time() + MOST_S
    for tokens in tried:
        by_mlx, by_numpy = least_seconds(tokens)
        if by_mlx < LEAST_GAIN * by_numpy:
            break
        quick = tokens
        if time.process_time() > end:
            break
    return quick


def _least_seconds(model: Module, tokens: int) -> tuple[float, float]:
    """Time a step of so many rows. The processor's time counts where it is less: beside other work, time says little."""
    caches = SlotCaches.merge([make_prompt_cache(model) for _ in range(tokens)])
    return _in_turns(
        partial(setattr, model, "host_tokens"),
        (0, tokens),
        lambda: mx.eval(caches.step(model, mx.array([0] * tokens))),
        (time.perf_counter, time.process_time),
    )


def _is_quick_with_prompts(model: Module) -> bool:
    """Compare the processor's time alone: a prompt keeps numpy's threads busy, and MLX's no more than that."""
    head = Head(model)
    by_mlx, by_numpy = _in_turns(
        partial(setattr, model, "host_prompts"),
        (False, True),
        lambda: SlotCaches.merge([make_prompt_cache(model)]).prefill(head, [[0] * PROMPT_TOKENS], [0]),
        (time.process_time,),
    )
    return by_mlx >= LEAST_GAIN * by_numpy


def _in_turns(
    choose: Callable[[Any], None],
    ways: tuple[Any, Any],
    compute: Callable[[], object],
    clocks: Sequence[Callable[[], float]],
) -> tuple[float, float]:
    """Return the least seconds of either way, by the clock that shows fewer."""
    least = [math.inf, math.inf]
    for _ in range(ROUNDS):
        for number, way in enumerate(ways):
            choose(way)
            started = [clock() for clock in clocks]
            compute()
            least[number] = min(least[number], *(clock() - start for clock, start in zip(clocks, started, strict=True)))
    return least[0], least[1]
