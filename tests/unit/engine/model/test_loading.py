"""A folder that mlx-lm cannot load, or that it takes for another: the error says which part of it."""

from __future__ import annotations

import importlib
import inspect
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.utils import MODEL_REMAPPING
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from benchmarks.parts.tiny_model import make_tiny_architecture, make_tiny_model, write_safetensors
from tasks.engine.model.corrections.activation import FIELD, SILU, SILU_ALONE
from tasks.engine.model.mlx import load_model
from tasks.errors import ModelLoadFailed
from tasks.messages.engine import EngineConfig, Submit
from tests.unit.engine.generation.test_engine_loop import Loop

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tasks.engine.model.mlx import MlxRunner

pytestmark = pytest.mark.xdist_group("mlx")


def load(folder: Path) -> MlxRunner:
    return load_model(EngineConfig(model="tiny", source=str(folder)), lambda *_: None, "")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda tensors: tensors.pop("model.norm.weight"), r"Missing 1 parameters: model\.norm\.weight"),
        (lambda tensors: tensors.update({"more.weight": mx.zeros((2,))}), r"1 parameters not in model: more\.weight"),
    ],
)
def test_tensors_that_are_missing_or_too_many_are_named(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], says: str
) -> None:
    """mlx-lm has their names in the lines behind the first one."""
    weights = make_tiny_model(tmp_path) / "model.safetensors"
    tensors: Any = mx.load(str(weights))
    change(tensors)
    mx.save_safetensors(str(weights), tensors)
    with pytest.raises(ModelLoadFailed, match=says):
        load(tmp_path)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model_type": "foo"}, r"config\.json: model_type is 'foo', which mlx-lm \S+ does not know: take"),
        ({"model_type": "foo", "auto_map": {}}, "code that comes with a model is not run"),
        ({"num_attention_heads": ...}, r"config\.json: lacks 'num_attention_heads', which mlx-lm"),
        (
            {"tie_word_embeddings": False},
            "tie_word_embeddings is false, and the files have no lm_head.weight: make it true",
        ),
        ({"rope_scaling": {"type": "ntk", "factor": 2.0}}, "cannot compute rope_scaling {'type': 'ntk'"),
        (
            {"model_type": "qwen2_moe", "rope_scaling": {"type": "yarn", "factor": 2.0}},
            "cannot compute rope_scaling|lacks",
        ),
        ({"rope_scaling": [1]}, r"cannot compute rope_scaling \[1\]"),
        (
            {"quantization_config": {"quant_method": "gptq", "bits": 4}},
            "quantised by 'gptq', and mlx-lm .* take the model's",
        ),
        ({"quantization_config": {"bits": 4}}, "quantization is {'bits': 4}, and mlx-lm"),
        ({"quantization": {"group_size": 64}}, "quantization is {'group_size': 64}, and mlx-lm"),
    ],
)
def test_fields_that_cannot_be_served(tmp_path: Path, config: dict[str, Any], says: str) -> None:
    """One error with the file, the field, its value and what to do, where mlx-lm has the name of a Python class."""
    path = make_tiny_model(tmp_path) / "config.json"
    described = {**json.loads(path.read_text()), **config}
    path.write_text(json.dumps({name: value for name, value in described.items() if value is not ...}))
    with pytest.raises(ModelLoadFailed, match=says) as raised:
        load(tmp_path)
    assert str(path) in str(raised.value)


def test_an_activation_that_mlx_lm_has_not(tmp_path: Path) -> None:
    """Its code for llama computes silu, and would answer nonsense with weights that were trained with another function."""
    path = make_tiny_model(tmp_path) / "config.json"
    described = json.loads(path.read_text())
    for part in ({"hidden_act": "relu"}, {"text_config": {**described, "hidden_act": "relu"}}):
        path.write_text(json.dumps({**described, **part}))
        with pytest.raises(
            ModelLoadFailed, match=r"hidden_act is .relu., and mlx-lm computes silu for .* type .llama."
        ):
            load(tmp_path)


@pytest.mark.parametrize("kind", sorted(SILU_ALONE))
def test_activations_that_are_written_into_mlx_lms_code(kind: str) -> None:
    """It reads no such field for these, and what their authors have is silu."""
    module = MODEL_REMAPPING.get(kind, kind)
    assert FIELD not in inspect.getsource(importlib.import_module(f"mlx_lm.models.{module}"))
    known = CONFIG_MAPPING[kind]() if kind in CONFIG_MAPPING else None
    assert getattr(known, FIELD, "silu") in SILU


def test_numbers_that_mlx_does_not_read(tmp_path: Path) -> None:
    """The error names a tensor of this type, and its file."""
    path = make_tiny_model(tmp_path) / "model.safetensors"
    tensors: Any = mx.load(str(path))
    write_safetensors(path, {name: np.array(array) for name, array in tensors.items()})
    path.write_bytes(
        path.read_bytes().replace(b'{"dtype": "F32", "shape": [266,', b'{"dtype": "F64", "shape": [133,', 1)
    )
    with pytest.raises(
        ModelLoadFailed, match=r"model\.safetensors: model\.embed_tokens\.weight has numbers of type F64"
    ):
        load(tmp_path)


@pytest.mark.parametrize("kind", ["F8_E4M3", "I8", "BOOL"])
def test_bytes_in_the_place_of_weights(tmp_path: Path, kind: str) -> None:
    """MLX reads 8-bit floats as bytes, and computes with these: the model would answer nonsense."""
    path = make_tiny_model(tmp_path) / "model.safetensors"
    tensors: Any = mx.load(str(path))
    name = "model.layers.0.mlp.up_proj.weight"
    mx.save_safetensors(str(path), {**tensors, name: tensors[name].astype(mx.int8)})
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = data[8:end].replace(b'"I8"', f'"{kind}"'.encode())
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[end:])
    with pytest.raises(ModelLoadFailed, match=rf"{name} has numbers of type {kind}, where MLX needs fractions"):
        load(tmp_path)


def test_a_folder_whose_path_means_something_in_a_pattern(tmp_path: Path) -> None:
    """mlx-lm looks for weights by a pattern."""
    assert load(make_tiny_model(tmp_path / "a [4 bits]")).facts.batching == "padded"


def test_a_part_that_is_null_is_none(tmp_path: Path) -> None:
    """mlx-lm looks into ``text_config`` wherever there is one."""
    path = make_tiny_model(tmp_path) / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "text_config": None}))
    assert load(tmp_path).facts.batching == "padded"


def test_buffers_of_pytorch_are_no_weights(tmp_path: Path) -> None:
    """Older files have them; mlx-lm's module for qwen3 refuses the whole model for one."""
    folder = make_tiny_architecture(tmp_path, "qwen3")
    weights = folder / "model.safetensors"
    tensors: Any = mx.load(str(weights))
    mx.save_safetensors(str(weights), {**tensors, "model.layers.0.self_attn.rotary_emb.inv_freq": mx.zeros((8,))})
    assert load(folder).facts.batching == "padded"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_configuration_as_editors_of_windows_write_it(tmp_path: Path, encoding: str) -> None:
    """With a byte order mark, which mlx-lm does not read; and with a quantisation that says nothing."""
    path = make_tiny_model(tmp_path) / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization": {}}), encoding)
    assert load(tmp_path).facts.batching == "padded"


def test_an_adapter_as_editors_of_windows_write_it(tmp_path: Path) -> None:
    """The byte order mark is no part of its configuration, which counts layers from the last as mlx_lm.lora does."""
    base, adapter = make_tiny_model(tmp_path / "base"), tmp_path / "adapter"
    adapter.mkdir()
    lora = {"rank": 2, "scale": 1.0, "dropout": 0.0, "keys": ["self_attn.q_proj"]}
    (adapter / "adapter_config.json").write_text(json.dumps({"num_layers": -1, "lora_parameters": lora}), "utf-8-sig")
    shapes = {"lora_a": (64, 2), "lora_b": (2, 64)}
    weights = {
        f"model.layers.{layer}.self_attn.q_proj.{name}": mx.zeros(shape)
        for layer in (0, 1)
        for name, shape in shapes.items()
    }
    mx.save_safetensors(str(adapter / "adapters.safetensors"), weights)
    config = EngineConfig(model="tiny", source=str(base), adapter=str(adapter))
    assert load_model(config, lambda *_: None, "").facts.batching == "padded"


def test_the_authors_stop_strings_end_an_answer(tmp_path: Path) -> None:
    """Beside those of the request."""
    (make_tiny_model(tmp_path) / "generation_config.json").write_text(json.dumps({"stop_strings": ["END"]}))
    runner = load(tmp_path)
    for stop in ((), ("DONE",)):
        submit = Submit(task_id="t", messages=None, prompt="a", max_tokens=9, stop=stop)
        prompt = runner.encode(submit)
        assembler = runner.assembler(submit, prompt, None)
        ids = [token_id for char in "It is ENDless" for token_id in runner.encode(replace(submit, prompt=char)).ids]
        said = [piece.text for token_id in ids for piece in assembler.push(token_id)]
        assert "".join(said) == "It is "
        assert assembler.stopped


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("suppress_tokens", r"suppress_tokens and bad_words_ids bar all \d+ tokens of the vocabulary: take out"),
        ("begin_suppress_tokens", r"begin_suppress_tokens bar all \d+ tokens of the vocabulary at the beginning of an"),
    ],
)
def test_a_model_whose_every_token_is_barred_is_refused(tmp_path: Path, field: str, said: str) -> None:
    """No token would be left to draw, and the one that came would mean nothing; with one left, that one comes."""
    folder = make_tiny_model(tmp_path, script="abcde")
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    known = [*range(max(vocabulary.values()) + 200)]  # more than the model has, as lists of a larger model have
    (folder / "generation_config.json").write_text(json.dumps({field: known}))
    with pytest.raises(ModelLoadFailed, match=rf"generation_config\.json: {said}"):
        load(folder)
    known.remove(vocabulary["c"])
    (folder / "generation_config.json").write_text(json.dumps({field: known}))
    loop = Loop(runner=load(folder))
    loop.submit("ask", 3)
    loop.finish()
    assert loop.answers["ask"].text == ("cde" if field == "begin_suppress_tokens" else "ccc")


def test_tokens_that_the_authors_bar_do_not_come(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Never, or not at the beginning; what cannot be done is named once in the log."""
    folder = make_tiny_model(tmp_path, script="abcde")
    a, c = (json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"][letter] for letter in "ac")
    for generation, said in (({"begin_suppress_tokens": [a]}, "!abcde"), ({"bad_words_ids": [[c]]}, "ab!ab!ab")):
        (folder / "generation_config.json").write_text(json.dumps({**generation, "num_beams": 2}))
        loop = Loop(runner=load(folder))
        loop.submit("ask", 8)
        loop.finish()
        assert loop.answers["ask"].text == said
    assert caplog.text.count("asks for num_beams 2, which changes nothing here") == 2
