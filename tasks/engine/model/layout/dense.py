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
from tasks.engine.model.layout.host_trial import compute_on_host
from tasks.engine.model.layout.panels import Layout, Streams, put_into_panels
from tasks.engine.model.layout.record import MOST_STREAMS, ROWS, Measured, name_of
from tasks.engine.model.layout.threads import limit_blas
from tasks.engine.model.layout.trial import choose

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlx.nn.layers.base import Module

    from tasks.engine.model.kept.verdicts import Verdicts
    from tasks.engine.model.layout.record import Record
    from tasks.engine.model.reference import Reference

logger = logging.getLogger(__name__)

#: Where all weights take less, they stay as they come: they fit into caches, and a step takes no time to speak of.
LEAST_BYTES = 64 << 20
#: A weight with at least this many outputs is a head, of which a prompt computes one row alone.
HEAD_OUTPUTS = 16_384
#: A difference of logits, as a share of their largest one, that another order of summing explains.
ROUNDING = 1e-3


def lay_out(
    model: Module, record: Record, machine: str, threads: int, reference: Reference, verdicts: Verdicts | None = None
) -> bool:
    """Choose a layout for the weights of single precision, and give it to them, in place.

    Each weight is there once at any time but for the one that is being laid out. ``False`` says that the model computes
    something else now and has to be loaded again: its code treats weights in a way that is not known here. Where a verdict
    says so already, weights stay as they come.
    """
    shapes = _shapes(model)
    if 4 * sum(outputs * inputs * count for (outputs, inputs), count in shapes.items()) < LEAST_BYTES:
        return True
    streams = Streams(min(threads, MOST_STREAMS))
    streams.host_threads.start()
    limit_blas()
    layouts = {
        kind: _layout(kind, shape, record, machine, streams, min(threads, MOST_STREAMS))
        for kind, shape in _largest(shapes).items()
    }
    about = ("layouts", layouts)
    known = verdicts.find(about) if verdicts is not None else None
    if known is None:
        is_right = apply(model, layouts, streams, reference)
        if verdicts is not None:
            verdicts.keep(about, {"is_right": is_right})
        if not is_right:
            return False
    elif known.get("is_right") is True:
        _give(model, layouts, streams)
    else:
        return True
    model.host_threads = streams.host_threads
    compute_on_host(model, reference, verdicts, layouts)
    return True


def apply(model: Module, layouts: Mapping[str, Layout], streams: Streams, reference: Reference) -> bool:
    """Give weights their layouts, and compare what the model computes then; see :func:`lay_out`."""
    before = reference.logits[: sum(map(len, _pieces(reference)))]
    _give(model, layouts, streams)
    try:
        after = _logits(model, _pieces(reference))
    except (ValueError, AttributeError, TypeError, KeyError):
        logger.debug("the model's code fails with another layout", exc_info=True)
        return False
    return _largest_of(after - before) <= ROUNDING * _largest_of(before)


def _give(model: Module, layouts: Mapping[str, Layout], streams: Streams) -> None:
    """Give weights of each kind its layout, and gated layers their quick form."""
    for module in _layers(model):
        layout = layouts.get(_kind(module.weight.shape), Layout())
        if layout.suits(module.weight):
            put_into_panels(module, layout, streams)
    for _, module in model.named_modules():
        if is_gated(module):
            module.__class__ = GatedLayer
    mx.clear_cache()


def _pieces(reference: Reference) -> list[list[int]]:
    """Two tokens together, and one more: products of several rows and of one."""
    return [reference.sequence[:2], reference.sequence[2:3]]


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


def _layout(kind: str, shape: tuple[int, int], record: Record, machine: str, streams: Streams, threads: int) -> Layout:
    name, load = name_of(kind, shape, threads), os.getloadavg()[0]
    measured = record.find(machine, name, load)
    if measured is None:
        choice = choose(shape, streams, threads, ROWS[:-1] if kind == "head" else ROWS)
        measured = Measured(
            machine=machine,
            kind=name,
            width=choice.layout.width,
            streams=choice.layout.streams,
            gains=choice.gains,
            load=round(load, 1),
        )
        record.add(measured)
    logger.debug("weights of %s", measured.says)
    return Layout(measured.width, measured.streams)


def _logits(model: Module, pieces: list[list[int]]) -> mx.array:
    """After each token of these pieces of a prompt."""
    cache = make_prompt_cache(model)
    logits = mx.concatenate([model(mx.array([piece]), cache=cache)[0] for piece in pieces])
    mx.eval(logits)
    return logits
