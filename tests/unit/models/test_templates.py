"""Chat templates, from every file that may have them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tasks.models.reading import LFS_POINTER, ModelFilesUnreadable
from tasks.models.templates import read_templates

if TYPE_CHECKING:
    from pathlib import Path


def _write(folder: Path, files: dict[str, Any]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if name.endswith(".jinja") else json.dumps({"chat_template": content}))


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({}, {}),
        ({"tokenizer_config.json": "a"}, {"default": "a"}),
        ({"chat_template.json": "a"}, {"default": "a"}),
        ({"processor_config.json": "a"}, {"default": "a"}),
        ({"chat_template.jinja": "a"}, {"default": "a"}),
        ({"tokenizer_config.json": "old", "chat_template.json": "older", "chat_template.jinja": "a"}, {"default": "a"}),
        ({"tokenizer_config.json": "a", "chat_template.json": "other"}, {"default": "a"}),
        ({"tokenizer_config.json": {"default": "a", "rag": "b"}}, {"default": "a", "rag": "b"}),
        (
            {"tokenizer_config.json": [{"name": "default", "template": "a"}, {"name": "rag", "template": "b"}]},
            {"default": "a", "rag": "b"},
        ),
        ({"tokenizer_config.json": [None, "x", {"name": 1, "template": "b"}, {"name": "n"}]}, {}),
        ({"tokenizer_config.json": "a", "additional_chat_templates/rag.jinja": "b"}, {"default": "a", "rag": "b"}),
        ({"tokenizer_config.json": 5}, {}),
        ({"tokenizer_config.json": "", "chat_template.json": "a"}, {"default": "a"}),
        ({"tokenizer_config.json": "a", "chat_template.jinja": " \n"}, {"default": "a"}),
        ({"chat_template.jinja": "\ufeffa"}, {"default": "a"}),
    ],
)  # fmt: skip
def test_templates_are_found_in_all_files(tmp_path: Path, files: dict[str, Any], named: dict[str, str]) -> None:
    """By name; files of their own go before the fields of older files, and one does not hide the other's names."""
    _write(tmp_path, files)
    assert {name: template.text for name, template in read_templates(tmp_path).named.items()} == named


def test_a_template_is_chosen_by_name(tmp_path: Path) -> None:
    """The catalogue may name another than the default, and is told which there are."""
    _write(tmp_path, {"chat_template.json": "a", "additional_chat_templates/rag.jinja": "b"})
    templates = read_templates(tmp_path)
    for name, text in ((None, "a"), ("default", "a"), ("rag", "b")):
        chosen = templates.choose(name)
        assert chosen is not None
        assert chosen.text == text
    with pytest.raises(ModelFilesUnreadable, match="it has default, rag"):
        templates.choose("tool_use")


def test_the_template_of_tools_is_the_one_of_that_name(tmp_path: Path) -> None:
    """Unless the catalogue has named one for all conversations."""
    _write(tmp_path, {"tokenizer_config.json": {"default": "a", "tool_use": "b"}})
    templates = read_templates(tmp_path)
    chosen = templates.choose_for_tools(None)
    assert chosen is not None
    assert chosen.text == "b"
    assert templates.choose_for_tools("default") is None


def test_a_model_without_a_default_names_those_that_it_has(tmp_path: Path) -> None:
    """With their files, and the two ways to go on."""
    _write(tmp_path, {"additional_chat_templates/rag.jinja": "b"})
    templates = read_templates(tmp_path)
    assert templates.choose(None) is None
    assert "rag (additional_chat_templates/rag.jinja)" in templates.none_for_messages
    assert "chat_template" in templates.none_for_messages


@pytest.mark.parametrize(("content", "says"), [(b"\xff\xfe", "cannot be read"), (LFS_POINTER, "git lfs pull")])
def test_a_damaged_template_is_an_error(tmp_path: Path, content: bytes, says: str) -> None:
    """It names the file."""
    (tmp_path / "chat_template.jinja").write_bytes(content)
    with pytest.raises(ModelFilesUnreadable, match=says) as raised:
        read_templates(tmp_path)
    assert "chat_template.jinja" in str(raised.value)
