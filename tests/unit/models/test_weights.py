"""Which files are a model's weights: the index decides, and what contradicts it is named as what it is."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from benchmarks.parts.tiny_model import write_safetensors
from tasks.models.files import read_model_size
from tasks.models.foreign import read_config
from tasks.models.reading import LFS_POINTER, ModelFilesUnreadable
from tasks.models.weights import INDEX, WeightsMissing, check_weights, stray_files, weight_files

if TYPE_CHECKING:
    from pathlib import Path

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def _write(folder: Path, files: dict[str, list[str]], index: dict[str, str] | None = None) -> None:
    """Files with these tensors, and an index."""
    for file, names in files.items():
        (folder / file).parent.mkdir(exist_ok=True)
        write_safetensors(folder / file, {name: np.zeros(4, np.float32) for name in names})
    if index is not None:
        (folder / INDEX).write_text(json.dumps({"weight_map": index}))


@pytest.mark.parametrize(
    ("files", "index", "weights", "strays"),
    [
        ({"model.safetensors": ["a"]}, None, ["model.safetensors"], []),
        ({FIRST: ["a"], SECOND: ["b"]}, {"a": FIRST, "b": SECOND}, [FIRST, SECOND], []),
        ({FIRST: ["a"], SECOND: ["b"]}, None, [FIRST, SECOND], []),
        ({FIRST: ["a"], "model.safetensors": ["a"]}, {"a": FIRST}, [FIRST], ["model.safetensors"]),
        ({"model.safetensors": ["a"], "model-old.safetensors": ["a"]}, None, ["model.safetensors"], ["model-old.safetensors"]),
        ({"model.safetensors": ["a"], FIRST: ["a"]}, {"a": "model.safetensors"}, ["model.safetensors"], [FIRST]),
        ({"model.safetensors": ["a"], "adapters.safetensors": ["lora"]}, None, ["model.safetensors"], []),
        ({"weights.00.safetensors": ["a"]}, {"a": "weights.00.safetensors"}, ["weights.00.safetensors"], []),
        ({"model-1.safetensors": ["a"], "model-2.safetensors": ["b"]}, None, ["model-1.safetensors", "model-2.safetensors"], []),
    ],
)  # fmt: skip
def test_what_belongs_to_the_model(
    tmp_path: Path, files: dict[str, list[str]], index: dict[str, str] | None, weights: list[str], strays: list[str]
) -> None:
    """The rest is a stray: neither loaded, nor counted, nor checked."""
    _write(tmp_path, files, index)
    for name in strays:
        (tmp_path / name).write_bytes(b"anything")
    (tmp_path / "config.json").write_text("{}")
    assert [path.name for path in check_weights(tmp_path)] == weights
    assert stray_files(tmp_path) == strays
    tensors = sum(len(names) for file, names in files.items() if file in weights)
    assert read_model_size(tmp_path).weights_bytes == 16 * tensors


@pytest.mark.parametrize(
    ("files", "index", "says"),
    [
        ({}, None, "has no weights"),
        ({"pytorch_model.bin": []}, None, "PyTorch: save them as safetensors"),
        ({"weights.npz": []}, None, "older MLX"),
        ({"onnx/model.onnx": []}, None, "ONNX"),
        ({"weights.safetensors": ["a"]}, None, "another name: call them model.safetensors"),
        ({"model.gguf": []}, None, "GGUF"),
        ({"adapters.safetensors": ["lora"]}, None, "adapter"),
        ({"consolidated.safetensors": ["a"]}, None, "authors' own format"),
        ({"consolidated.00.pth": []}, None, "authors' own format"),
        ({FIRST: ["a"]}, None, "of 2 shards, number 2 is missing"),
        ({FIRST: ["a"]}, {"a": FIRST, "b": SECOND}, f"names {SECOND}, which is missing"),
        ({"model.safetensors": ["a"]}, {"a": FIRST}, r"index\.json is stale: it names"),
        ({"model.safetensors": ["a"]}, {}, "names no files"),
    ],
)
def test_weights_that_are_missing(
    tmp_path: Path, files: dict[str, list[str]], index: dict[str, str] | None, says: str
) -> None:
    """The error says which, and what to do about what is there instead."""
    _write(tmp_path, files, index)
    with pytest.raises(WeightsMissing, match=says) as raised:
        weight_files(tmp_path)
    assert str(tmp_path) in str(raised.value)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ([], "is this a model's folder"),
        (["model.gguf"], "convert that with python -m"),
        (["params.json", "consolidated.safetensors"], "authors' own format"),
        (["adapter_config.json", "adapter_model.safetensors"], "name the folder of its base model"),
        (["model_index.json", "unet/config.json"], "writes no text"),
        (["model/config.json"], "its folder model has one: name that"),
        (["Config.JSON"], "it has Config.JSON: call that config.json"),
    ],
)
def test_folders_without_a_configuration(tmp_path: Path, files: list[str], says: str) -> None:
    """Other programs' models are called what they are, with the remedy."""
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    with pytest.raises(ModelFilesUnreadable, match=says) as raised:
        read_model_size(tmp_path)
    assert str(tmp_path / "config.json") in str(raised.value)


def test_numbers_that_json_has_not(tmp_path: Path) -> None:
    """transformers 5 writes infinity as an object, and older versions as a word that Python reads."""
    for infinity in ('{"__float__": "Infinity"}', "Infinity"):
        (tmp_path / "config.json").write_text(
            f'{{"time_step_limit": [0.0, {infinity}], "text_config": {{"a": {infinity}}}}}'
        )
        assert read_config(tmp_path) == {"time_step_limit": [0.0, math.inf], "text_config": {"a": math.inf}}


@pytest.mark.parametrize(
    ("files", "index", "says"),
    [
        ({FIRST: ["a"], SECOND: ["b"]}, {"a": FIRST, "c": SECOND}, r"is stale: it has the tensor 'c' in"),
        ({FIRST: ["a"], SECOND: ["b"]}, {"a": SECOND, "b": FIRST}, r"is stale: it has the tensor"),
        ({"model-1.safetensors": ["a"], "model-2.safetensors": ["a"]}, None, "both have the tensor 'a'"),
        ({FIRST: ["a"], SECOND: ["b"], "model-00001-of-00003.safetensors": ["a"]}, None, "shards of 2 and of 3"),
        ({FIRST: ["a"]}, {"a": f"../{FIRST}"}, "is not the name of a safetensors file"),
        ({FIRST: ["a"]}, {"a": "/etc/passwd"}, "is not the name of a safetensors file"),
    ],
)
def test_weights_that_contradict_each_other(
    tmp_path: Path, files: dict[str, list[str]], index: dict[str, str] | None, says: str
) -> None:
    """An index of another conversion, leftovers of an earlier one, a path that leads out of the folder."""
    _write(tmp_path, files, index)
    with pytest.raises(ModelFilesUnreadable, match=says):
        check_weights(tmp_path)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def _grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def _point(path: Path) -> None:
    path.write_bytes(LFS_POINTER + b"v1\noid sha256:0123\nsize 1000\n")


@pytest.mark.parametrize(
    ("damage", "says"),
    [(_cut, "cut off: [0-9]+ of [0-9]+ bytes"), (_grow, "where its header says"), (_point, "git lfs pull")],
)
def test_a_damaged_shard_is_named_as_what_it_is(tmp_path: Path, damage: type, says: str) -> None:
    """With its path; the other shards are whole."""
    _write(tmp_path, {FIRST: ["a"], SECOND: ["b"]}, {"a": FIRST, "b": SECOND})
    damage(tmp_path / SECOND)
    with pytest.raises(ModelFilesUnreadable, match=says) as raised:
        check_weights(tmp_path)
    assert str(tmp_path / SECOND) in str(raised.value)


def test_a_damaged_index_is_an_error(tmp_path: Path) -> None:
    """A pointer in its place, too."""
    _write(tmp_path, {FIRST: ["a"]})
    for content in (b"{", b"[]", b'{"weight_map": [1]}', LFS_POINTER):
        (tmp_path / INDEX).write_bytes(content)
        with pytest.raises(ModelFilesUnreadable, match=r"index\.json"):
            weight_files(tmp_path)
