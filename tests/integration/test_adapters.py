"""LoRA adapters, trained here in a moment, on dense and on quantised base models: what mlx-lm answers with them is answered."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.parts.tiny_model import end_id, make_tiny_model
from tasks.engine.files.adapter import WEIGHTS
from tasks.messages.engine import EngineConfig, Sampling
from tests.engine_client import EngineClient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("tiny")

PROMPT, TAUGHT = "say it: ", "LoRA!"
LORA = {"rank": 8, "scale": 20.0, "dropout": 0.0}
STEPS = 60


@pytest.fixture(scope="module", params=["dense", "quantised"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model whose widths can be quantised."""
    folder = make_tiny_model(tmp_path_factory.mktemp("models") / "base", hidden_size=64)
    if request.param == "dense":
        return folder
    from mlx_lm import convert

    quantised = folder.parent / "quantised"
    convert(str(folder), str(quantised), quantize=True, q_group_size=32, q_bits=8)
    return quantised


@pytest.fixture(scope="module")
def adapter(base: Path) -> Path:
    """An adapter that teaches the base model one answer, as ``mlx_lm.lora`` writes it."""
    import mlx.core as mx
    from mlx import nn, optimizers
    from mlx.utils import tree_flatten
    from mlx_lm import load
    from mlx_lm.tuner.utils import linear_to_lora_layers

    model, tokenizer = load(str(base))
    model.freeze()
    mx.random.seed(0)
    linear_to_lora_layers(model, 2, LORA)
    ids = mx.array([tokenizer.encode(PROMPT + TAUGHT)])

    def loss(model: Any) -> Any:
        return nn.losses.cross_entropy(model(ids[:, :-1]), ids[:, 1:]).mean()

    step, optimizer = nn.value_and_grad(model, loss), optimizers.Adam(learning_rate=1e-3)
    for _ in range(STEPS):
        optimizer.update(model, step(model)[1])
        mx.eval(model.parameters(), optimizer.state)
    folder = base.parent / f"{base.name}-adapter"
    folder.mkdir()
    mx.save_safetensors(str(folder / WEIGHTS), dict(tree_flatten(model.trainable_parameters())))
    described = {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": LORA}
    (folder / "adapter_config.json").write_text(json.dumps(described))
    return folder


@pytest.fixture(scope="module")
def adapted(base: Path, adapter: Path) -> Iterator[EngineClient]:
    with EngineClient(EngineConfig(model="base@adapter", source=str(base), adapter=str(adapter))) as client:
        assert client.ready
        yield client


def mlx_lms(base: Path, adapter: Path | None, tokens: int) -> str:
    """What mlx-lm itself says, greedily."""
    from mlx_lm import generate, load

    model, tokenizer = load(str(base), adapter_path=str(adapter) if adapter else None)
    return str(generate(model, tokenizer, tokenizer.encode(PROMPT), max_tokens=tokens))


def test_the_answer_is_the_adapters(base: Path, adapter: Path, adapted: EngineClient) -> None:
    """It says what it was taught, alone and in a batch, as mlx-lm says it; the base model does not."""
    sampling = Sampling(temperature=0.0, logit_bias={end_id(base): -1000.0})
    tasks = [adapted.submit(PROMPT, len(TAUGHT), sampling=sampling) for _ in range(3)]
    assert [adapted.answer(task).text for task in tasks] == [TAUGHT] * 3
    assert mlx_lms(base, adapter, len(TAUGHT)) == TAUGHT
    assert mlx_lms(base, None, len(TAUGHT)) != TAUGHT


@pytest.mark.parametrize("base", ["dense"], indirect=True)
def test_an_adapter_that_lacks_weights(base: Path, adapter: Path, tmp_path: Path) -> None:
    """One whose configuration changes more layers than were trained is not served as if it were whole."""
    import mlx.core as mx

    part = tmp_path / "part"
    shutil.copytree(adapter, part)
    weights = mx.load(str(part / WEIGHTS))
    assert isinstance(weights, dict)
    kept = {name: array for name, array in weights.items() if ".layers.1." in name}
    mx.save_safetensors(str(part / WEIGHTS), kept)
    with EngineClient(EngineConfig(model="base@part", source=str(base), adapter=str(part))) as client:
        failed = client.load_failed
    assert failed.code == "model_load_failed"
    assert f"lacks {len(weights) - len(kept)} of the {len(weights)} weights" in failed.message


@pytest.mark.parametrize("base", ["dense"], indirect=True)
def test_an_adapter_of_another_model(adapter: Path, tmp_path: Path) -> None:
    """The error says which tensor does not fit, and nothing is served."""
    other = make_tiny_model(tmp_path / "other", hidden_size=32)
    with EngineClient(EngineConfig(model="other@adapter", source=str(other), adapter=str(adapter))) as client:
        failed = client.load_failed
    assert failed.code == "model_load_failed"
    assert "does not fit its base model" in failed.message
    assert "lora_a: adapter shape" in failed.message
