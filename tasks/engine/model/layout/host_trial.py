"""Whether a model's code works on numpy's arrays, and up to how many tokens of a step they are quicker here."""

from __future__ import annotations

import logging
import math
import time
from functools import partial
from typing import TYPE_CHECKING

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import make_prompt_cache

from tasks.engine.model.head import Head
from tasks.engine.model.layout.host import prepare
from tasks.engine.model.slots import SlotCaches, fit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlx.nn.layers.base import Module

    from tasks.engine.model.reference import Reference
    from tasks.engine.model.verdicts import Verdicts

logger = logging.getLogger(__name__)

#: The tokens of the steps that are tried, the next only if numpy has gained with the one before.
TOKENS = (1, 8, 32, 64)
#: The number of times that each step is timed, in turns with MLX's; its least time counts.
ROUNDS = 2
#: The processor time after which no more tokens are tried.
MOST_S = 2.0
LEAST_GAIN = 1.1
#: A difference of logits, as a share of their largest one, that another order of summing explains.
ROUNDING = 1e-3


def compute_on_host(
    model: Module, reference: Reference, verdicts: Verdicts | None = None, about: object = None
) -> None:
    """Have steps of few tokens computed by numpy, in place, where the model's code allows that and it is quicker.

    A verdict on the same ``about`` spares the trial.
    """
    if not fit(make_prompt_cache(model)):
        return
    about = ("host", about, np.__version__, TOKENS)
    known = verdicts.find(about) if verdicts is not None else None
    tokens = known.get("tokens") if known is not None else None
    if tokens != 0:
        prepare(model)
    if not isinstance(tokens, int):
        tokens = quick_tokens(partial(_least_seconds, model)) if supports_numpy(model, reference) else 0
        if verdicts is not None:
            verdicts.keep(about, {"tokens": tokens})
    logger.debug("numpy computes steps of at most %d tokens", tokens)
    model.host_tokens = tokens


def supports_numpy(model: Module, reference: Reference) -> bool:
    """Whether prepared code computes the same of numpy arrays: for rows of unequal lengths, with one token or more."""
    given = reference.sequence
    model.host_tokens = TOKENS[-1]
    try:
        caches = SlotCaches.merge([make_prompt_cache(model) for _ in range(2)])
        caches.prefill(Head(model), [given[:2], given[:4]], [])
        logits = mx.concatenate(
            [
                caches.step(model, mx.array([given[2], given[4]])),
                caches.step_drafted(model, [given[3:5], given[5:7]]),
                caches.step_drafted(model, [given[4:7], given[6:7]]),
            ]
        )
        expected = reference.logits[mx.array([2, 4, 3, 5, 4, 6, 4, 6, 5, 6])]
        difference = mx.where(mx.isfinite(expected), mx.abs(logits - expected), 0.0).max()
        bound = ROUNDING * mx.where(mx.isfinite(expected), mx.abs(expected), 0.0).max()
        return bool((difference <= bound).item())
    except (ValueError, AttributeError, TypeError, LookupError, RuntimeError):
        logger.debug("the model's code fails with numpy's arrays", exc_info=True)
        return False
    finally:
        model.host_tokens = 0


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
    """The processor's time counts where it is less: where other processes want the cores, time says little."""
    caches = SlotCaches.merge([make_prompt_cache(model) for _ in range(tokens)])
    least = {0: math.inf, tokens: math.inf}
    for _ in range(ROUNDS):
        for host_tokens in (0, tokens):
            model.host_tokens = host_tokens
            start, processor = time.perf_counter(), time.process_time()
            _step(model, caches, tokens)
            seconds = min(time.perf_counter() - start, time.process_time() - processor)
            least[host_tokens] = min(least[host_tokens], seconds)
    return least[0], least[tokens]


def _step(model: Module, caches: SlotCaches, rows: int) -> None:
    mx.eval(caches.step(model, mx.array([0] * rows)))
