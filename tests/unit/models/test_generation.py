"""Sampling defaults and end tokens out of a model's own files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tasks.models.generation import WHOLE_CONTEXT, read_generation
from tasks.models.reading import LFS_POINTER, ModelFilesUnreadable

if TYPE_CHECKING:
    from pathlib import Path


def _write(folder: Path, generation: object) -> None:
    (folder / "generation_config.json").write_text(json.dumps(generation))


@pytest.mark.parametrize(
    ("generation", "sampling"),
    [
        (
            {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95},
            {"temperature": 0.6, "top_k": 20, "top_p": 0.95},
        ),
        ({"do_sample": False}, {"temperature": 0.0}),
        ({"do_sample": False, "temperature": 0.7}, {"temperature": 0.0}),
        ({"temperature": 0, "min_p": 0.05}, {"temperature": 0.0, "min_p": 0.05}),
        ({"repetition_penalty": 1.05}, {"repetition_penalty": 1.05, "repetition_context_size": WHOLE_CONTEXT}),
        ({"repetition_penalty": 1.0}, {"repetition_penalty": 1.0}),
        ({"top_k": 50.0}, {"top_k": 50}),
        ({"temperature": None, "top_p": 0, "top_k": -1, "min_p": 2, "repetition_penalty": 0}, {}),
        ({"temperature": "0.6", "top_p": True, "top_k": 1.5, "min_p": [0.1]}, {}),
        ({"temperature": float("nan"), "top_p": float("inf"), "top_k": 10**400}, {}),
        ({}, {}),
    ],
)
def test_sampling_defaults(tmp_path: Path, generation: dict[str, Any], sampling: dict[str, float]) -> None:
    """What is in bounds is taken, ``do_sample: false`` is greedy, and the rest is left out."""
    _write(tmp_path, generation)
    assert read_generation(tmp_path, {}).sampling == sampling


@pytest.mark.parametrize(
    ("generation", "config", "ends", "said_by"),
    [
        ({"eos_token_id": 5}, {"eos_token_id": 6}, (5,), "generation_config.json"),
        ({"eos_token_id": 0}, {"eos_token_id": 6}, (0,), "generation_config.json"),
        ({"eos_token_id": [5, 7, 5]}, {}, (5, 7), "generation_config.json"),
        ({"eos_token_id": [None, "<|end|>", [8], -1, 9.0, 1.5, True, {}]}, {}, ("<|end|>", 8, 9), "generation_config"),
        ({"eos_token_id": ["2", "<2>"]}, {}, (2, "<2>"), "generation_config.json"),
        ({}, {"eos_token_id": [6]}, (6,), "config.json"),
        ({"eos_token_id": None}, {"eos_token_id": 6}, (6,), "config.json"),
        ({"eos_token_id": []}, {"text_config": {"eos_token_id": 4}}, (4,), "text_config"),
        ({}, {"eos_token_id": 3, "text_config": {"eos_token_id": 4}}, (3,), "config.json"),
        ({}, {"text_config": 3}, (), ""),
    ],
)
def test_end_tokens(
    tmp_path: Path, generation: dict[str, Any], config: dict[str, Any], ends: tuple[int | str, ...], said_by: str
) -> None:
    """The first place that names any decides; odd entries of a list do not hide its others."""
    _write(tmp_path, generation)
    found = read_generation(tmp_path, config)
    assert found.ends == ends
    assert said_by in found.ends_said_by


@pytest.mark.parametrize(
    ("given", "stops"), [("END", ("END",)), (["a", "b", "a", "", None, 3], ("a", "b")), (None, ()), ({}, ())]
)
def test_stop_strings(tmp_path: Path, given: object, stops: tuple[str, ...]) -> None:
    """Under transformers' name, one or several; with end tokens beside them and without."""
    for more in ({}, {"eos_token_id": 5}):
        _write(tmp_path, {"stop_strings": given, **more})
        assert read_generation(tmp_path, {}).stops == stops


@pytest.mark.parametrize(
    ("generation", "barred", "first", "not_done"),
    [
        ({"suppress_tokens": [7, 9], "begin_suppress_tokens": [3]}, (7, 9), (3,), ()),
        ({"suppress_tokens": [7, -1, None, 7], "bad_words_ids": [[7], [8], [5]], "eos_token_id": 5}, (7, 8), (), ()),
        ({"bad_words_ids": [[7, 8], [], [9], 4]}, (9,), (), ("bad_words_ids of several tokens (1)",)),
        ({"suppress_tokens": None, "begin_suppress_tokens": 4, "bad_words_ids": {}}, (), (4,), ()),
        (
            {"num_beams": 4, "no_repeat_ngram_size": 3, "max_new_tokens": 512, "typical_p": 1.0, "min_length": 0},
            *((), (), ("num_beams 4", "no_repeat_ngram_size 3", "max_new_tokens 512")),
        ),
        (
            {"max_length": 4096, "pad_token_id": 0, "bos_token_id": 1, "num_beams": 1, "guidance_scale": None},
            (),
            (),
            (),
        ),
    ],
)
def test_barred_tokens_and_what_is_not_done(
    tmp_path: Path,
    generation: dict[str, Any],
    barred: tuple[int, ...],
    first: tuple[int, ...],
    not_done: tuple[str, ...],
) -> None:
    """Single tokens that are never to come are found under each of their names; what has no effect here is named."""
    _write(tmp_path, generation)
    found = read_generation(tmp_path, {})
    assert (found.barred, found.barred_first, found.not_done) == (barred, first, not_done)


@pytest.mark.parametrize(
    ("content", "says"), [(b"{", "not valid JSON"), (b"[]", "JSON object"), (LFS_POINTER + b"v1\n", "git lfs pull")]
)
def test_a_damaged_file_is_an_error(tmp_path: Path, content: bytes, says: str) -> None:
    """Without it the model would be served with other defaults, and might never end."""
    (tmp_path / "generation_config.json").write_bytes(content)
    with pytest.raises(ModelFilesUnreadable, match=says) as raised:
        read_generation(tmp_path, {})
    assert str(tmp_path / "generation_config.json") in str(raised.value)
