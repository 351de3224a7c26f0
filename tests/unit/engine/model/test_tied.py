"""Whether the head is the embedding: the files say so where config.json does not, or says what they contradict."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import pytest

from benchmarks.parts.tiny_model import make_tiny_model
from tasks.engine.files.folder import read_folder
from tasks.engine.model.corrections.tied import FIELD, tied_fields
from tasks.engine.model.loading import load_weights
from tasks.messages.engine import EngineConfig

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("mlx")


def _write(folder: Path, head: str, said: bool | None) -> dict[str, Any]:
    """A model with no head, its embedding as head, or another one; returns its config.json."""
    path = make_tiny_model(folder) / "config.json"
    config = {key: value for key, value in json.loads(path.read_text()).items() if key != FIELD}
    config |= {} if said is None else {FIELD: said}
    path.write_text(json.dumps(config))
    tensors: Any = mx.load(str(folder / "model.safetensors"))
    embedding = tensors["model.embed_tokens.weight"]
    tensors |= {"none": {}, "same": {"lm_head.weight": embedding}, "other": {"lm_head.weight": -embedding}}[head]
    mx.save_safetensors(str(folder / "model.safetensors"), tensors)
    return config


@pytest.mark.parametrize(
    ("head", "said", "tied"),
    [
        *(("none", None, None), ("none", True, None), ("none", False, None)),
        *(("same", None, None), ("same", True, None), ("same", False, None)),
        *(("other", None, False), ("other", True, False), ("other", False, None)),
    ],
)
def test_what_mlx_lm_is_told(tmp_path: Path, head: str, said: bool | None, tied: bool | None) -> None:
    """Nothing where its own default, or the file's word, does no harm; in a part of a larger model as well."""
    config = _write(tmp_path, head, said)
    told = {} if tied is None else {FIELD: tied}
    assert tied_fields(tmp_path, config) == told
    part = {key: value for key, value in config.items() if key != FIELD}
    whole = {"text_config": part, FIELD: said}
    handed_down = told or ({} if said is None else {FIELD: said})
    assert tied_fields(tmp_path, whole) == ({"text_config": {**part, **handed_down}} if handed_down else {})


def test_a_head_in_the_files_is_computed_with(tmp_path: Path) -> None:
    """mlx-lm would leave it out, and answer with the embedding."""
    _write(tmp_path, "other", None)
    config = EngineConfig(model="tiny", source=str(tmp_path))
    model = load_weights(read_folder(config), config)
    hidden = model.model(mx.array([[1, 2, 3]]))
    assert mx.allclose(model(mx.array([[1, 2, 3]])), -model.model.embed_tokens.as_linear(hidden), atol=1e-5)
