"""A LoRA adapter's files: what is one, and which revision it makes of its base model's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from benchmarks.parts.tiny_model import make_tiny_model, write_safetensors
from tasks.engine.files.adapter import CONFIG, PEFT_WEIGHTS, WEIGHTS, find_adapter
from tasks.engine.files.folder import read_folder
from tasks.errors import ModelLoadFailed
from tasks.messages.engine import EngineConfig
from tasks.models.reading import LFS_POINTER, ModelFilesUnreadable

if TYPE_CHECKING:
    from pathlib import Path


def write_adapter(folder: Path, value: float) -> Path:
    import numpy as np

    folder.mkdir()
    write_safetensors(folder / WEIGHTS, {"lora_a": np.full((2, 2), value, np.float32)})
    (folder / CONFIG).write_text(json.dumps({"num_layers": 1, "lora_parameters": {"dropout": 0.0}}))
    return folder


def test_the_revision_names_the_adapter(tmp_path: Path) -> None:
    """An answer of one adapter is not gone on with by another, nor by the base model; a copy of its files may."""
    base = make_tiny_model(tmp_path / "base")
    adapters = [write_adapter(tmp_path / f"adapter{number}", value) for number, value in enumerate((1.0, 2.0, 1.0))]
    plain = read_folder(EngineConfig(model="base", source=str(base))).revision
    first, other, copied = (
        read_folder(EngineConfig(model="base@a", source=str(base), adapter=str(adapter))).revision
        for adapter in adapters
    )
    assert len({plain, first, other}) == 3
    assert first == copied
    assert first.startswith(plain)


def test_what_is_no_adapter(tmp_path: Path) -> None:
    """Each kind has its reason and, where there is one, its remedy."""
    with pytest.raises(ModelLoadFailed, match="no such folder; put the adapter there"):
        find_adapter(str(tmp_path / "nowhere"))
    with pytest.raises(
        ModelLoadFailed, match=r"^adapter acme/a/b: cannot be fetched from the hub \(.*\): try again, or"
    ):
        find_adapter("acme/a/b")
    with pytest.raises(ModelFilesUnreadable, match=r"adapter_config\.json: missing"):
        find_adapter(str(tmp_path))
    (tmp_path / CONFIG).write_text(json.dumps({"r": 8, "lora_alpha": 16}))
    with pytest.raises(ModelFilesUnreadable, match=r"has no num_layers; it is not the configuration of mlx_lm\.lora"):
        find_adapter(str(tmp_path))
    for described, says in (
        ({"lora_layers": 2, "lora_parameters": {}}, "it has lora_layers, as older versions .*: call that num_layers"),
        ({"num_layers": 2, "lora_parameters": {"rank": 8, "scale": 1.0}}, "lora_parameters has no dropout; add"),
    ):
        (tmp_path / CONFIG).write_text(json.dumps(described))
        with pytest.raises(ModelFilesUnreadable, match=says):
            find_adapter(str(tmp_path))
    (tmp_path / CONFIG).write_text(json.dumps({"fine_tune_type": "full"}))
    with pytest.raises(ModelFilesUnreadable, match=r"adapters\.safetensors: missing"):
        find_adapter(str(tmp_path))
    whole = (write_adapter(tmp_path / "whole", 1.0) / WEIGHTS).read_bytes()
    write_safetensors(tmp_path / WEIGHTS, {})
    nothing = (tmp_path / WEIGHTS).read_bytes()
    for content, says in (
        (whole[:-4], r"cut off: \d+ of \d+ bytes; fetch the file again"),
        (LFS_POINTER + b"v1\n", "is a Git LFS pointer, not the file itself"),
        (nothing, "has no weights; train the adapter again"),
    ):
        (tmp_path / WEIGHTS).write_bytes(content)
        with pytest.raises(ModelFilesUnreadable, match=rf"^{tmp_path / WEIGHTS}: {says}"):
            find_adapter(str(tmp_path))
    (tmp_path / WEIGHTS).unlink()
    (tmp_path / PEFT_WEIGHTS).touch()
    with pytest.raises(ModelFilesUnreadable, match="was made by PEFT"):
        find_adapter(str(tmp_path))
