"""Steps on numpy: mlx-lm's code of a model computes the same of numpy's arrays, or the model is left to MLX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx_lm.models import rope_utils
from mlx_lm.models.cache import make_prompt_cache

from benchmarks.models.tiny import build
from tasks.engine.model.batching.slot_layer import Call, SlotLayer
from tasks.engine.model.batching.slots import SlotCaches
from tasks.engine.model.layout.attention import BLOCK_TOKENS, SHARED_BYTES, attend
from tasks.engine.model.layout.dense import apply
from tasks.engine.model.layout.host import prepare
from tasks.engine.model.layout.host_product import MANY_ROWS, host_product
from tasks.engine.model.layout.host_trial import (
    TOKENS,
    compute_on_host,
    quick_tokens,
    supports_numpy,
    supports_prompts,
)
from tasks.engine.model.layout.panels import WHOLE, Layout, Panels, Streams
from tasks.engine.model.layout.rotation import GROW_POSITIONS, Rotation
from tasks.engine.model.layout.threads import HostThreads
from tasks.engine.model.reference import Reference

if TYPE_CHECKING:
    from mlx.nn.layers.base import Module

    from tasks.engine.model.kept.verdicts import Verdicts

pytestmark = pytest.mark.xdist_group("mlx")


def laid_out(name: str) -> tuple[Module, Reference]:
    """A tiny model whose weights lie in panels, and what it computed before."""
    model = build(name)
    model.set_dtype(mx.float32)
    reference = Reference(model)
    assert apply(model, {"layers": Layout(8)}, Streams(1), reference)
    return model, reference


@pytest.mark.parametrize(
    "name",
    ["llama, traditional rope", "llama, one kv head", "qwen2", "qwen3, tied", "phi3", "gemma", "gpt2", "openelm"],
)
def test_a_model_computes_the_same(name: str) -> None:
    """Rows of unequal lengths: with biases, norms of heads, shared keys, either kind of pairs, merged products, and what
    their code calls of MLX; and MLX's arrays as before.
    """
    model, reference = laid_out(name)
    prepare(model)
    assert supports_numpy(model, reference)
    assert supports_prompts(model, reference)
    logits = model(mx.array([reference.sequence]), cache=make_prompt_cache(model))[0]
    assert isinstance(logits, mx.array)
    assert mx.allclose(logits, reference.logits, atol=1e-3).item()


@pytest.mark.parametrize("name", ["qwen3_moe", "gpt_bigcode", "deepseek_v3"])
def test_a_model_that_does_not_bear_it_is_left_to_mlx(name: str) -> None:
    """Its code raises at the trial, and its steps are computed as before."""
    model, reference = laid_out(name)
    compute_on_host(model, reference)
    assert model.host_tokens == 0
    caches = SlotCaches.merge([make_prompt_cache(model)])
    assert mx.allclose(caches.step(model, mx.array(reference.sequence[:1]))[0], reference.logits[0], atol=1e-3).item()


def test_code_that_computes_something_else_is_noticed() -> None:
    """A difference beyond rounding is one; a model whose caches have windows is not tried at all."""
    model, reference = laid_out("llama")
    prepare(model)
    reference.logits = reference.logits + 1.0
    assert not supports_numpy(model, reference)
    assert not supports_prompts(model, reference)
    windows, reference = laid_out("llama, windows")
    compute_on_host(windows, reference)
    assert not hasattr(windows, "host_tokens")


@pytest.mark.parametrize(
    ("rope", "dims", "traditional"),
    [
        (nn.RoPE(16, traditional=True), 16, True),
        (nn.RoPE(8, scale=0.5), 8, False),
        (rope_utils.Llama3RoPE(16, scaling_config={"factor": 8.0}), 16, False),
        (rope_utils.YarnRoPE(16, scaling_factor=4.0), 16, False),
        (rope_utils.SuScaledRoPE(16, short_factor=1.0, long_factor=2.0), 16, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_positions_are_rotated_alike(rope: Any, dims: int, traditional: bool) -> None:
    """Of several rows and tokens, beyond the first table too."""
    rotation = Rotation(rope, dims, traditional=traditional)
    x = mx.random.normal((3, 2, 2, 16), key=mx.random.key(1))
    for offsets in ([0, 7, 3], [1, GROW_POSITIONS - 1, 2 * GROW_POSITIONS]):
        expected = np.asarray(rope(x, offset=mx.array(offsets)))
        assert np.allclose(rotation(np.asarray(x), np.array(offsets, np.int32)), expected, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_a_product_is_the_same_on_the_same_memory(rows: int) -> None:
    """Also where a BLAS call takes a part of the inputs; the weight is there once."""
    weight = mx.random.normal((128, 9000), key=mx.random.key(1))
    x = mx.random.normal((rows, 9000), key=mx.random.key(2))
    panels = Panels.of(weight, Layout(64), Streams(1))
    assert np.allclose(panels(np.asarray(x)), np.asarray(x @ weight.T), atol=1e-2)
    assert np.array_equal(panels.rows(np.array([[0, 127]])), np.asarray(weight[mx.array([[0, 127]])]))
    assert np.shares_memory(panels.on_host, np.asarray(panels.array))


@pytest.mark.parametrize("width", [64, WHOLE])
@pytest.mark.parametrize("rows", [1, 8, MANY_ROWS + 1])
def test_threads_share_a_product_out(rows: int, width: int) -> None:
    """Of one weight, and of two whose products are combined: its panels, or the rows where these are many."""
    streams = Streams(2)
    streams.host_threads.start()
    weights = [mx.random.normal((1024, 1024), key=mx.random.key(n)) for n in range(2)]
    one, other = (Panels.of(weight, Layout(width), streams) for weight in weights)
    x = mx.random.normal((rows, 1024), key=mx.random.key(2))
    expected, by_other = (np.asarray(x @ weight.T) for weight in weights)
    assert np.allclose(one(np.asarray(x)), expected, atol=1e-2)
    assert np.allclose(host_product(np.asarray(x), [one, other], np.subtract), expected - by_other, atol=1e-2)


def test_threads_share_long_attention_out() -> None:
    """Of rows of unequal lengths, one of which has a further token."""
    rng = np.random.default_rng(1)
    keys, values = rng.standard_normal((2, 4, 2, 1100, 64), np.float32)
    queries = rng.standard_normal((5, 4, 1, 64), np.float32)
    assert keys.nbytes >= SHARED_BYTES
    seen = np.array([100, 900, 1100, 1000, 901])
    mask = (np.arange(1100) < seen[:, None])[:, None, None]
    slots = [0, 1, 2, 3, 1]
    expected = mx.fast.scaled_dot_product_attention(
        mx.array(queries), mx.array(keys[slots]), mx.array(values[slots]), scale=0.1, mask=mx.array(mask)
    )
    threads = HostThreads(2)
    threads.start()
    layer = SlotLayer()
    layer.call = Call(np, 5, seen, 1, 1100, masked=True, further={1: [4]}, threads=threads)
    assert np.allclose(attend(queries, keys, values, layer, 0.1, mask), np.asarray(expected), atol=1e-4)


@pytest.mark.parametrize("count", [2, BLOCK_TOKENS, 2 * BLOCK_TOKENS + 5])
def test_each_token_of_a_prompt_sees_those_up_to_itself(count: int) -> None:
    """Of rows with unequal numbers of tokens before, in blocks that threads share out."""
    rng = np.random.default_rng(1)
    offsets = np.array([0, 7, 40], np.int32)
    longest = 40 + count
    keys, values = rng.standard_normal((2, 3, 2, longest, 16), np.float32)
    queries = rng.standard_normal((3, 4, count, 16), np.float32)
    threads = HostThreads(2)
    threads.start()
    layer = SlotLayer()
    layer.call = Call(np, 3, offsets, count, longest, masked=True, threads=threads)
    mask = layer.make_mask(count)
    assert isinstance(mask, str)
    seen = np.asarray(layer.make_mask(count, return_array=True))
    expected = mx.fast.scaled_dot_product_attention(
        mx.array(queries), mx.array(keys), mx.array(values), scale=0.25, mask=mx.array(seen)
    )
    assert np.allclose(attend(queries, keys, values, layer, 0.25, mask), np.asarray(expected), atol=1e-5)


def test_numpy_computes_as_many_tokens_as_it_is_quicker_with() -> None:
    """More tokens are tried only where numpy has gained with fewer."""
    assert quick_tokens({1: (2.0, 1.0), 4: (1.5, 1.0), 8: (1.0, 1.0)}.__getitem__, (1, 4, 8, 16)) == 4
    assert quick_tokens({1: (2.0, 1.0), 4: (1.5, 1.0)}.__getitem__, (1, 4)) == 4
    assert quick_tokens({1: (1.0, 1.0)}.__getitem__, (1, 4)) == 0


class Kept:
    """Verdicts without a file."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, Any]] = {}

    def find(self, about: object) -> dict[str, Any] | None:
        return self.found.get(repr(about))

    def keep(self, about: object, verdict: dict[str, Any]) -> None:
        self.found[repr(about)] = verdict


def test_a_verdict_spares_the_trial() -> None:
    """What one load has found is what the next one takes, without a look at what the model computes."""
    kept = cast("Verdicts", Kept())
    model, reference = laid_out("llama")
    compute_on_host(model, reference, kept, "it")
    again, _ = laid_out("llama")
    compute_on_host(again, cast("Reference", None), kept, "it")
    assert again.host_tokens == model.host_tokens in {0, *TOKENS}
    assert again.host_prompts == model.host_prompts
