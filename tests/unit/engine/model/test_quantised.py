"""Every kind of quantisation that mlx-lm writes loads, counts its parameters rightly and answers as mlx-lm's own model does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlx.core as mx
import pytest
from mlx import nn
from mlx_lm import convert
from mlx_lm.utils import get_total_parameters, load_model

from benchmarks.parts.tiny_model import make_tiny_model
from tasks.engine.files.folder import read_folder
from tasks.engine.model.layout.dequantise import dequantise, unpacked
from tasks.engine.model.loading import load_weights
from tasks.messages.engine import EngineConfig
from tasks.models.routing import size_of
from worker_config.catalogue import ModelEntry

if TYPE_CHECKING:
    from pathlib import Path

AFFINE = [
    {"q_mode": "affine", "q_bits": bits, "q_group_size": group} for bits in (2, 3, 4, 5, 6, 8) for group in (32, 64)
]
FLOATS = [
    {"q_mode": mode, "q_bits": bits, "q_group_size": group}
    for mode, bits, group in (("mxfp4", 4, 32), ("mxfp8", 8, 32), ("nvfp4", 4, 16))
]
MIXED = [{"quant_predicate": f"mixed_{widths}", "q_group_size": 32} for widths in ("2_6", "3_4", "3_6", "4_6")]
PROMPT = [[5, 9, 77, 31, 200, 4]]


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models") / "dense")


@pytest.mark.parametrize(
    "options", [*AFFINE, *FLOATS, *MIXED], ids=lambda options: "-".join(map(str, options.values()))
)
def test_answers_as_mlx_lms_own(dense: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    """With dense weights, as a CPU computes, and with the weights as they are, where there is no room for dense ones."""
    folder = tmp_path / "quantised"
    convert(str(dense), str(folder), quantize=True, **options)
    own, _ = load_model(folder)
    prompt = mx.array(PROMPT)
    for budget in (None, 1):
        config = EngineConfig(model="quantised", source=str(folder), memory_budget_bytes=budget)
        model = load_weights(read_folder(config), config)
        assert mx.allclose(model(prompt), own(prompt), rtol=0.0, atol=1e-4).item()
    size = size_of(ModelEntry(name="quantised", kind="path", source=str(folder)))
    assert size.parameters_b == pytest.approx(get_total_parameters(own) / 1e9, rel=1e-3)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_the_numbers_are_those_of_mlx(bits: int, dtype: mx.Dtype) -> None:
    """To the last bit, for groups of each size."""
    for group in (32, 64, 128):
        weight = mx.random.normal((24, 256), key=mx.random.key(bits)).astype(dtype)
        words, scales, biases = mx.quantize(weight, group_size=group, bits=bits)
        expected = mx.dequantize(words, scales, biases, group_size=group, bits=bits)
        found = unpacked(words, scales, biases, bits)
        assert found.dtype == expected.dtype
        assert mx.array_equal(found, expected).item()


@pytest.mark.parametrize(("bits", "mode"), [(4, "affine"), (3, "affine"), (4, "mxfp4")])
def test_every_layer_becomes_dense(bits: int, mode: str) -> None:
    """An embedding, a layer with a bias and one without, by this module or by mlx-lm's."""
    model: Any = nn.Module()
    model.embedding, model.biased, model.plain = nn.Embedding(8, 64), nn.Linear(64, 32), nn.Linear(64, 32, bias=False)
    nn.quantize(model, group_size=32, bits=bits, mode=mode)
    tokens = mx.array([[1, 5]])
    expected = (model.embedding(tokens), model.biased(model.embedding(tokens)), model.plain(model.embedding(tokens)))
    mx.eval(expected)
    dense: Any = dequantise(model)
    assert [type(layer) for layer in (dense.embedding, dense.biased, dense.plain)] == [
        nn.Embedding,
        nn.Linear,
        nn.Linear,
    ]
    found = (dense.embedding(tokens), dense.biased(dense.embedding(tokens)), dense.plain(dense.embedding(tokens)))
    close = 1e-4 if mode == "affine" else 0.05  # mlx-lm computes in 16 bits with the dense weights of the others
    assert all(mx.allclose(one, other, atol=close).item() for one, other in zip(found, expected, strict=True))
