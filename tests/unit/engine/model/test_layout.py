"""Weights that lie in panels: they compute the same, are there once, and are chosen by what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlx.core as mx
import pytest
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.models import llama
from mlx_lm.models.cache import make_prompt_cache

from benchmarks.models.tiny import build
from tasks.engine.model.layout.dense import apply, lay_out
from tasks.engine.model.layout.gated import GatedLayer
from tasks.engine.model.layout.panels import (
    WHOLE,
    Layout,
    PanelEmbedding,
    PanelLinear,
    Panels,
    Streams,
    put_into_panels,
)
from tasks.engine.model.layout.record import ROWS, Measured, Record
from tasks.engine.model.layout.trial import best, choose
from tasks.engine.model.reference import Reference

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("mlx")

TWO = (2,) * len(ROWS)
PANELS = Layout(64, TWO)
MACHINE = "a processor"


def small(*, tied: bool = True, **changes: Any) -> llama.Model:
    """A llama with random weights, of which all but the norms can lie in panels of 64."""
    config = {
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "rms_norm_eps": 1e-5,
        "vocab_size": 320,
        "tie_word_embeddings": tied,
    }
    model = llama.Model(llama.ModelArgs.from_dict({**config, **changes}))
    mx.eval(model.parameters())
    return model


def logits(model: nn.Module) -> mx.array:
    """Of three rows, after a prompt of four tokens and one token more."""
    cache = make_prompt_cache(model)
    model(mx.array([[5, 6, 7, 8]] * 3), cache=cache)
    answer: mx.array = model(mx.array([[1], [2], [3]]), cache=cache)
    return answer


@pytest.mark.parametrize("width", [32, 64, WHOLE])
@pytest.mark.parametrize("rows", [1, 2, 9, 70])
def test_a_product_is_the_same(width: int, rows: int) -> None:
    """In any width and on two streams, with rows for one BLAS call and for several unequal ones."""
    weight = mx.random.normal((512, 1024), key=mx.random.key(1))  # large enough to be shared out
    x = mx.random.normal((2, rows, 1024), key=mx.random.key(2))
    layer = nn.Linear(1024, 512)
    layer.weight = weight
    expected = layer(x)
    put_into_panels(layer, Layout(width, TWO), Streams(2))
    assert isinstance(layer, PanelLinear)
    assert mx.allclose(layer(x), expected, atol=1e-3).item()
    assert mx.array_equal(layer.weight, weight).item()
    ids = mx.array([[0, 63, 511], [64, 65, 1]])
    assert mx.array_equal(Panels.of(weight, Layout(width), Streams(1)).rows(ids), weight[ids]).item()


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_computes_the_same_with_as_many_bytes(tied: bool) -> None:
    """All its linear layers lie in panels, the embedding only where it is the head as well, and nothing is there twice."""
    model = small(tied=tied)
    expected, held = logits(model), sum(array.nbytes for _, array in tree_flatten(model.parameters()))
    mx.eval(expected)
    assert apply(model, {"layers": PANELS}, Streams(2), Reference(model))
    assert mx.allclose(logits(model), expected, atol=1e-4).item()
    assert sum(array.nbytes for _, array in tree_flatten(model.parameters())) == held
    kinds = [type(module) for _, module in model.named_modules()]
    assert nn.Linear not in kinds
    assert (kinds.count(PanelEmbedding), kinds.count(GatedLayer)) == (int(tied), 2)


@pytest.mark.parametrize("name", ["deepseek_v3", "gemma3_text", "gpt_neox", "mamba2", "qwen3_next"])
def test_other_architectures_bear_it(name: str) -> None:
    """Layers with biases, experts, states, latent attention: what can lie in panels does, and the logits are the same."""
    model = build(name)
    model.set_dtype(mx.float32)
    assert apply(model, {"layers": Layout(8, TWO)}, Streams(2), Reference(model))
    assert any(isinstance(module, PanelLinear) for _, module in model.named_modules())


def test_a_quantised_model_stays_as_it_is() -> None:
    """Only dense weights of single precision are laid out."""
    model = small()
    nn.quantize(model, group_size=32)
    before = logits(model)
    assert apply(model, {"layers": PANELS}, Streams(1), Reference(model))
    assert not any(isinstance(module, PanelLinear | PanelEmbedding) for _, module in model.named_modules())
    assert mx.array_equal(logits(model), before).item()


class Peculiar(nn.Linear):
    """Reaches for the weight of another layer in a way that no layout can know."""

    def __call__(self, x: mx.array) -> mx.array:
        """Raises where that weight lies elsewhere."""
        product: mx.array = x @ self["inner"]["weight"].T
        return product


def test_code_that_does_not_bear_it_is_noticed() -> None:
    """The model is then to be loaded again, and stays as it comes."""
    model = small(tied=False)
    head = Peculiar(1, 1)
    head.inner = model.lm_head
    model.lm_head = head
    assert not apply(model, {"layers": PANELS}, Streams(1), Reference(model))


def test_what_was_measured_is_used_again(tmp_path: Path) -> None:
    """A large model is laid out as the record says, without another measurement; the record outlives damage."""
    record, streams = Record(tmp_path / "new"), (2, 1, 2, 1)
    for kind, width in (("layers 512x512, 2 threads", 64), ("head 32768x512, 2 threads", WHOLE)):
        record.add(Measured(machine=MACHINE, kind=kind, width=width, streams=streams, gains=(2.0,) * 4, load=0.0))
    written = (tmp_path / "new" / "layouts-3.json").read_text()
    model = small(hidden_size=512, intermediate_size=512, vocab_size=32768, num_hidden_layers=1)
    expected = logits(model)
    mx.eval(expected)
    assert lay_out(model, record, MACHINE, 2, Reference(model))
    assert mx.allclose(logits(model), expected, atol=1e-3).item()
    assert model.model.embed_tokens.panels.shape == (1, 512, 32768)
    assert model.layers[0].mlp.up_proj.panels.shape == (8, 512, 64)
    assert (tmp_path / "new" / "layouts-3.json").read_text() == written
    (tmp_path / "new" / "layouts-3.json").write_text("{")
    assert record.find(MACHINE, "layers 512x512, 2 threads", 0.0) is None


def test_only_what_an_engine_would_use_is_current(tmp_path: Path) -> None:
    """Measurements with other threads, on another machine, or under an older version's name are kept, and not shown."""
    record = Record(tmp_path)
    kinds = [
        "layers 9x9, 1 threads",
        "layers 9x9, 2 threads",
        "layers 9x9, 1 thread",
        "head 99x9, 1 thread",
        "layers 9x9",
    ]
    for machine, kind in [*((MACHINE, kind) for kind in kinds), ("another", kinds[2])]:
        record.add(Measured(machine=machine, kind=kind, width=0, streams=(1,) * 4, gains=(1.0,) * 4, load=0.0))
    assert [entry.kind for entry in record.current(MACHINE, 1)] == kinds[2:4]


def test_a_measurement_on_a_busy_machine_is_made_again_on_an_idle_one(tmp_path: Path) -> None:
    """And not while it is as busy as it was."""
    record = Record(tmp_path)
    record.add(Measured(machine=MACHINE, kind="layers", width=0, streams=(1,) * 4, gains=(1.0,) * 4, load=1000.0))
    assert record.find(MACHINE, "layers", 900.0) is not None
    assert record.find(MACHINE, "layers", 0.5) is None


def test_the_choice_follows_what_products_took() -> None:
    """The best width over all numbers of rows, more streams where they gain, and weights as they come where nothing does."""
    seconds = {(1, 0, 1): 1.0, (16, 0, 1): 4.0}
    seconds |= {(1, 64, 1): 0.5, (16, 64, 1): 4.0, (1, 64, 2): 0.49, (16, 64, 2): 2.0}
    seconds |= {(1, WHOLE, 1): 0.4, (16, WHOLE, 1): 8.0, (1, WHOLE, 2): 0.4, (16, WHOLE, 2): 8.0}
    choice = best([64, WHOLE], (1, 16), 2, seconds)
    assert choice.layout == Layout(64, (1, 2, 2, 2))
    assert choice.gains == (2.0, 2.0)
    assert best([WHOLE], (1, 16), 2, seconds).layout == Layout()


@pytest.mark.parametrize(("many_s", "width"), [(1.0, 64), (4.0, 64), (40.0, 0)])
def test_many_rows_refuse_nothing_alone(many_s: float, width: int) -> None:
    """Products of many rows count in the mean: half the speed there is made up for by what steps gain, a tenth is not."""
    seconds = {(1, 0, 1): 1.0, (128, 0, 1): 2.0, (1, 64, 1): 0.3, (128, 64, 1): many_s}
    assert best([64], (1, 128), 1, seconds).layout.width == width


def test_a_trial_measures_what_it_may_choose() -> None:
    """Products of real weights, by each layout that suits the shape: one of them is chosen, or none."""
    choice = choose((96, 64), Streams(2), 2)
    assert choice.layout.width in {0, 32, WHOLE}
    assert len(choice.gains) == len(choice.layout.streams) == len(ROWS)
