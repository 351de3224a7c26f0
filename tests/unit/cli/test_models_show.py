"""``celery -A tasks models show``: what decides how a model is served, and where that is said."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from benchmarks.parts.tiny_model import make_tiny_model
from tasks.cli import models as command
from tasks.models.description import describe
from tests.tiny_encoder import make_tiny_cross_encoder, make_tiny_encoder
from worker_config.catalogue import Catalogue
from worker_config.model_entry import ModelEntry

if TYPE_CHECKING:
    from pathlib import Path


def _entry(folder: Path, **values: Any) -> ModelEntry:
    return ModelEntry(name="tiny", kind="path", source=str(folder), **values)


def _said(folder: Path, **values: Any) -> dict[str, tuple[str, str]]:
    return {fact.name: (fact.value, fact.said_by) for fact in describe(_entry(folder, **values), folder)}


def test_facts_and_the_files_that_say_them(tmp_path: Path) -> None:
    """Context, sampling, end tokens, template, weights; a stray file is named."""
    folder = make_tiny_model(tmp_path / "tiny")
    (folder / "generation_config.json").write_text(
        json.dumps({"top_k": 20, "temperature": 0.6, "eos_token_id": [7, 8]})
    )
    (folder / "model-old.safetensors").write_bytes(b"")
    said = _said(folder)
    assert said["context"] == ("2,048 tokens", "config.json: max_position_embeddings")
    assert said["top_k"] == ("20", "generation_config.json")
    assert said["end tokens"] == ("7, 8", "generation_config.json")
    assert said["end token"] == ("<|im_end|>", "tokenizer_config.json")
    assert said["chat template"][1] == "tokenizer_config.json"
    assert said["not loaded"][0] == "model-old.safetensors"
    # 2 layers × 2 heads × 16 × keys and values × 2 bytes.
    caches = {name: value for name, (value, _) in said.items() if name.startswith("KV")}
    assert caches == {"KV cache of 2,048 tokens": f"{2048 * 256:,} bytes in 16 bits"}  # no request is longer
    longer = _said(folder, context_tokens=8192)
    assert [name for name in longer if name.startswith("KV")] == [
        "KV cache of 4,096 tokens",
        "KV cache of 8,192 tokens",
    ]


def test_end_tokens_have_names_where_the_tokenizer_has_some(tmp_path: Path) -> None:
    """And the tokenizer's own has no row beside those of which it is one."""
    folder = make_tiny_model(tmp_path / "tiny")
    names = {
        entry["content"]: entry["id"] for entry in json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    }
    ends = [names["<|im_end|>"], names["<|endoftext|>"], 7]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    said = _said(folder)
    assert said["end tokens"][0] == f"<|im_end|> ({ends[0]}), <|endoftext|> ({ends[1]}), 7"
    assert "end token" not in said


def test_an_adapter_and_a_named_template(tmp_path: Path) -> None:
    """The catalogue's choices, with what the adapter's own file says of it; a base model names its adapters."""
    folder, adapter = make_tiny_model(tmp_path / "tiny", chat_template=False), tmp_path / "sql"
    adapter.mkdir()
    config = {"num_layers": 2, "lora_parameters": {"rank": 8, "scale": 20.0}}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "brief.jinja").write_text("{{ messages }}")
    said = _said(folder, adapter=str(adapter), chat_template="brief")
    assert said["adapter"] == (str(adapter), "catalogue")
    assert said["adapter's size"] == ("rank 8, scale 20.0, on 2 layers", "adapter_config.json")
    assert said["chat template"] == (
        "brief, 14 characters",
        "additional_chat_templates/brief.jinja, by the catalogue",
    )
    assert _said(folder, adapters={"sql": str(adapter)})["adapters"] == ("sql", "catalogue")


def test_how_a_model_makes_vectors(tmp_path: Path) -> None:
    """Its steps and its prompts, and nothing of answers that it never gives."""
    folder = make_tiny_encoder(tmp_path / "tiny", dense=8)
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {"document": "passage: "}}))
    said = _said(folder, prompts={"query": "query: "})
    assert said["vectors"] == ("mean of its tokens, then dense, Tanh, then normalised", "modules.json")
    assert said["input_type query"] == ("'query: '", "catalogue")
    assert said["input_type document"] == ("'passage: '", "config_sentence_transformers.json")
    assert said["context"] == ("64 tokens", "config.json: max_position_embeddings")
    assert not {"end tokens", "end token", "chat template"} & said.keys()
    assert not any(name.startswith("KV") for name in said)


def test_the_catalogue_goes_before_the_files(tmp_path: Path) -> None:
    """And is named as what says it."""
    folder = make_tiny_model(tmp_path / "tiny", chat_template=False)
    (folder / "generation_config.json").write_text(json.dumps({"temperature": 0.6}))
    said = _said(folder, context_tokens=8192, defaults={"temperature": 0.3})
    assert said["context"] == ("8,192 tokens", "catalogue")
    assert said["temperature"] == ("0.3", "catalogue")
    assert said["chat template"] == ("none for messages", "not set")


@pytest.mark.parametrize("as_json", [False, True])
def test_the_command_shows_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_json: bool) -> None:
    """As a table, or as one JSON object."""
    folder = make_tiny_model(tmp_path / "tiny")
    catalogue = Catalogue({"tiny": _entry(folder), "gone": _entry(tmp_path / "gone")})
    monkeypatch.setattr(command, "this_catalogue", lambda: catalogue)
    shown = CliRunner().invoke(
        command.models, ["show", "tiny", *(["--json"] if as_json else [])], catch_exceptions=False
    )
    assert shown.exit_code == 0
    if as_json:
        facts = json.loads(shown.output)["facts"]
        assert {"name": "context", "value": "2,048 tokens", "said_by": "config.json: max_position_embeddings"} in facts
    else:
        assert "context" in shown.output
        assert "config.json: max_position_embeddings" in shown.output


@pytest.mark.parametrize(("name", "says"), [("gone", "not on this machine"), ("unknown", "neither in the catalogue")])
def test_a_model_that_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, says: str) -> None:
    """One line, and a status that scripts see."""
    monkeypatch.setattr(command, "this_catalogue", lambda: Catalogue({"gone": _entry(tmp_path / "gone")}))
    shown = CliRunner().invoke(command.models, ["show", name])
    assert shown.exit_code == 1
    assert says in shown.output


def test_a_cross_encoder(tmp_path: Path) -> None:
    """It says how scores are made, and nothing of templates, sampling or vectors."""
    said = _said(make_tiny_cross_encoder(tmp_path / "cross"))
    assert said["scores for rerank"] == ("sigmoid of its head's logit", "config.json")
    assert {*said} <= {"weights", "parameters", "context", "scores for rerank"}
