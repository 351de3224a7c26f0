"""Lays out a loaded model's dense weights as is quick on this machine."""

from __future__ import annotations

import logging
import os
from collections import Counter
from typing import TYPE_CHECKING, cast

import mlx.core as mx
from mlx import nn
from mlx_lm.models.cache import make_prompt_cache

from tasks.engine.model.layout.gated import GatedLayer, is_gated
from tasks.engine.model.layout.panels import Lanes, Layout, put_into_panels
from tasks.engine.model.layout.record import ROWS, Measured
from tasks.engine.model.layout.trial import choose

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlx.nn.layers.base import Module

    from tasks.engine.model.layout.record import Record

logger = logging.getLogger(__name__)

#: Where all weights take less, they stay as they come: they fit into caches, and a step takes no time to speak of.
LEAST_BYTES = 64 << 20
#: A weight with so many outputs is a head, of which a prompt computes one row alone.
HEAD_OUTPUTS = 16_384
#: More streams than this were never measured.
MOST_LANES = 4
#: A difference of logits, as a share of their largest one, that another order of summing explains.
ROUNDING = 1e-3


def lay_out(model: Module, record: Record, machine: str, threads: int) -> bool:
    """Choose a layout for the weights of single precision, and give it to them, in place.

    Each weight is there once at any time but for the one that is being laid out. ``False`` says that the model computes
    something else now and has to be loaded again: its code treats weights in a way that is not known here.
    """
    shapes = _shapes(model)
    if 4 * sum(outputs * inputs * count for (outputs, inputs), count in shapes.items()) < LEAST_BYTES:
        return True
    lanes = Lanes(min(threads, MOST_LANES))
    layouts = {
        kind: _layout(kind, shape, record, machine, lanes, min(threads, MOST_LANES))
        for kind, shape in _largest(shapes).items()
    }
    return apply(model, layouts, lanes)


def apply(model: Module, layouts: Mapping[str, Layout], lanes: Lanes) -> bool:
    """Give weights of each kind its layout, and gated layers their quick form; see :func:`lay_out`."""
    before = _logits(model)
    for module in _layers(model):
        layout = layouts.get(_kind(module.weight.shape), Layout())
        if layout.suits(module.weight):
            put_into_panels(module, layout, lanes)
    for _, module in model.named_modules():
        if is_gated(module):
            module.__class__ = GatedLayer
    mx.clear_cache()
    try:
        after = _logits(model)
    except (ValueError, AttributeError, TypeError, KeyError):
        logger.debug("the model does not bear another layout", exc_info=True)
        return False
    return _largest_of(after - before) <= ROUNDING * _largest_of(before)


def _largest_of(array: mx.array) -> float:
    finite = mx.where(mx.isfinite(array), mx.abs(array), 0.0)  # some models bar tokens by minus infinity
    return cast("float", finite.max().item())


def _layers(model: Module) -> list[nn.Linear | nn.Embedding]:
    """Layers of single precision; an embedding only if it may be the head as well, for lack of one of its shape."""
    found = [
        module
        for _, module in model.named_modules()
        if type(module) in {nn.Linear, nn.Embedding} and module.weight.dtype == mx.float32
    ]
    heads = {module.weight.shape for module in found if isinstance(module, nn.Linear)}
    return [module for module in found if isinstance(module, nn.Linear) or module.weight.shape not in heads]


def _shapes(model: Module) -> Counter[tuple[int, int]]:
    return Counter((module.weight.shape[0], module.weight.shape[1]) for module in _layers(model))


def _kind(shape: tuple[int, ...]) -> str:
    return "head" if shape[0] >= HEAD_OUTPUTS else "layers"


def _largest(shapes: Counter[tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """Of each kind, the shape that most of its bytes have."""
    found: dict[str, tuple[int, int]] = {}
    for shape in sorted(shapes, key=lambda shape: shape[0] * shape[1] * shapes[shape]):
        found[_kind(shape)] = shape
    return found


def _layout(kind: str, shape: tuple[int, int], record: Record, machine: str, lanes: Lanes, threads: int) -> Layout:
    name, load = f"{kind} {shape[0]}x{shape[1]}, {threads} threads", os.getloadavg()[0]
    measured = record.find(machine, name, load)
    if measured is None:
        choice = choose(shape, lanes, threads, ROWS[:-1] if kind == "head" else ROWS)
        measured = Measured(
            machine=machine,
            kind=name,
            width=choice.layout.width,
            lanes=choice.layout.lanes,
            gains=choice.gains,
            load=round(load, 1),
        )
        record.add(measured)
    logger.debug("weights of %s", measured.says)
    return Layout(measured.width, measured.lanes)


def _logits(model: Module) -> mx.array:
    """After two tokens together, and after one more."""
    cache = make_prompt_cache(model)
    logits = mx.concatenate([model(mx.array([tokens]), cache=cache) for tokens in ([3, 1], [2])], axis=1)
    mx.eval(logits)
    return logits
