"""Tiny models of mlx-lm's own architectures: how each is served is found out at load, and what it then computes is right."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import pytest

from benchmarks.models.matrix import SCENARIOS, TOLERANCE, difference
from benchmarks.models.tiny import build
from tasks.engine.model.corrections.architectures import correct
from tasks.engine.model.selftest import try_out
from tasks.errors import ModelLoadFailed

if TYPE_CHECKING:
    from mlx.nn.layers.base import Module

    from tasks.messages.load import Batching

pytestmark = pytest.mark.xdist_group("mlx")

#: How they are served, and, of those that could not be served so without a correction, what they are an example of.
SERVED: dict[str, Batching] = {
    "llama": "padded",
    "gemma2": "padded",  # as many kv heads as the batch has rows at first
    "gemma2, one kv head": "padded",
    "gemma2, as many kv heads": "padded",
    "gemma2, four of eight": "padded",  # as many as the batch has rows in the end
    "gemma3_text": "padded",
    "plamo3": "padded",
    "nemotron-nas": "padded",  # layers without attention, whose caches stay empty
    "qwen3_next": "padded",
    "baichuan_m1": "equal",
    "bailing_moe_linear": "equal",
    "falcon_mamba": "equal",
    "jamba": "equal",
    "mamba": "equal",
    "nemotron_h": "equal",
    "olmo_hybrid": "equal",
    "rwkv7": "equal",
    "longcat_flash_ngram": "apart",
    "recurrent_gemma": "apart",
    "afm7": "apart",
    "gpt_bigcode": "apart",
    "llama4": "apart",
    "minimax_m3_vl": "apart",
}


@pytest.mark.parametrize("name", SERVED)
def test_alone_and_together_are_the_same(name: str) -> None:
    """Rows that come and go, prompts over the window and in pieces: each row's logits are those of mlx-lm for it alone."""
    model = build(name)
    support = try_out(model, correct(model))
    assert support.batching == SERVED[name]
    assert bool(support.why) == (support.batching != "padded")
    for scenario in ("joins", "windows"):
        assert difference(model, support, SCENARIOS[scenario]) <= TOLERANCE
        if support.slots:
            assert difference(model, support, SCENARIOS[scenario], slots=True, drafts=True) <= TOLERANCE


@pytest.mark.parametrize("kv_heads", [1, 2, 4, 8])
def test_masks_on_the_wrong_axis_are_noticed(kv_heads: int) -> None:
    """Gemma 2 as mlx-lm has it raises where rows and kv heads differ in number, and is silently wrong where they do not."""
    uncorrected = build("gemma2", num_attention_heads=16, num_key_value_heads=kv_heads)
    assert try_out(uncorrected).batching == "apart"


@pytest.mark.parametrize(("name", "batching"), [("llama", "padded"), ("mamba", "equal"), ("gpt_bigcode", "apart")])
def test_sixteen_bits(name: str, batching: Batching) -> None:
    """Rounding in 16 bits is taken neither for a fault, nor a fault for it."""
    model = build(name)
    model.set_dtype(mx.bfloat16)
    assert try_out(model).batching == batching


class Wrapped:
    """A model that does something of its own to the logits of batches."""

    def __init__(self, model: Module, change: Any) -> None:
        self._model = model
        self._change = change
        self.layers = model.layers

    def __call__(self, inputs: mx.array, cache: Any = None) -> mx.array:
        logits = self._model(inputs, cache=cache)
        changed: mx.array = self._change(logits) if len(inputs) > 1 else logits
        return changed

    def parameters(self) -> Any:
        return self._model.parameters()

    def named_modules(self) -> Any:
        return self._model.named_modules()


@pytest.mark.parametrize(
    ("change", "batching", "why"),
    [
        (lambda logits: logits * (1 + 1e-5), "padded", ""),
        (lambda logits: logits + 3.0, "padded", ""),  # no probability is another one
        (lambda logits: logits * 1.01, "apart", "differ from single ones by 0.01 of"),
        (lambda logits: logits * math.nan, "apart", "differ from single ones by inf of"),
        (lambda logits: logits.reshape(7, 7, 7), "apart", "raise ValueError"),
    ],
)
def test_how_much_of_a_difference_is_one(change: Any, batching: Batching, why: str) -> None:
    """Rounding is none; a hundredth of the logits' deviation is, and so are NaN and an error."""
    support = try_out(Wrapped(build("llama"), change))
    assert support.batching == batching
    assert why in support.why


def test_tokens_that_a_model_bars_are_no_difference() -> None:
    """Some architectures set the logits of unused tokens to minus infinity."""
    model = build("llama")
    barred = mx.arange(320) >= 300

    class Barring(Wrapped):
        def __call__(self, inputs: mx.array, cache: Any = None) -> mx.array:
            return mx.where(barred, -math.inf, super().__call__(inputs, cache))

    assert try_out(Barring(model, lambda logits: logits)).batching == "padded"


def test_running_out_of_memory_says_nothing_of_the_model() -> None:
    """It is an error of the load, not a reason to serve rows one by one."""

    def run_out(_: mx.array) -> mx.array:
        raise RuntimeError("[metal::malloc] Attempting to allocate 1 bytes which is greater than the maximum")

    with pytest.raises(RuntimeError, match="malloc"):
        try_out(Wrapped(build("llama"), run_out))


def test_what_cannot_be_computed_at_all_is_refused_with_its_reason() -> None:
    """A type that mlx-lm computes wrongly even for a single row."""
    model = build("llama")
    model.model_type = "phi3small"
    with pytest.raises(ModelLoadFailed, match="'phi3small' cannot be served: mlx-lm adds its attention's mask"):
        correct(model)
