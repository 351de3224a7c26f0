"""What doctor says of models and of the disk."""

from __future__ import annotations

import json
import os
import shutil
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from tasks.cli.diagnosis import models
from tasks.cli.diagnosis.models import disk_lines, model_lines
from tasks.engine.model.kept.kept_file import KeptFile
from tasks.engine.model.kept.verdict_file import FILE, entry_of
from tasks.hardware import detect
from tasks.models import routing
from tests.unit.hardware.machines import linux
from worker_config.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.cli.diagnosis.line import Line

M2_PRO = detect(Settings(chip="M2 Pro", memory_gb=16), linux())


@pytest.fixture(autouse=True)
def empty_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No model is on this disk but what a test puts there."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    for module in (models, routing):
        monkeypatch.setattr(module, "bundled_folder", lambda name: tmp_path / "bundled" / name)
    return tmp_path


def catalogue(folder: Path, text: str) -> Settings:
    path = folder / "catalogue.toml"
    path.write_text(f"builtin_models = false\n{text}")
    return Settings(catalogue=str(path), default_model="small")


def entry(name: str, source: str, parameters_b: float = 1.0) -> str:
    return f'[[models]]\nname = "{name}"\nsource = "{source}"\nparameters_b = {parameters_b}\n'


def model(folder: Path, weights: bytes | None = None) -> Path:
    """A folder with a configuration and one tensor of 4 values."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    header = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    whole = len(header).to_bytes(8, "little") + header + bytes(16)
    (folder / "model.safetensors").write_bytes(whole if weights is None else weights)
    return folder


def lines_of(settings: Settings) -> dict[str, Line]:
    return {line.what: line for line in model_lines(settings, M2_PRO)}


def test_the_built_in_catalogue_on_an_empty_disk() -> None:
    """Nothing is on the disk: the bundled model says how to fetch it, the rest comes from the hub or is too large."""
    lines = lines_of(Settings())
    assert lines["default"].level == "warning"
    assert "tasks.demo.bundled" in lines["default"].remedy
    assert lines["on this disk"].says == "none yet"
    assert "qwen3-8b" in lines["to be fetched"].says
    assert "llama-3.3-70b" in lines["too large here"].says


def test_models_on_this_disk(empty_disk: Path) -> None:
    """A bundled model, a folder and a hub model that was fetched are on this disk."""
    model(empty_disk / "bundled" / "small")
    hub = empty_disk / "hub" / "hub" / "models--owner--fetched"
    model(hub / "snapshots" / "abc")
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text("abc")
    folder = model(empty_disk / "mine")
    text = entry("small", "bundled:small") + entry("fetched", "owner/fetched") + entry("mine", str(folder))
    lines = lines_of(catalogue(empty_disk, text))
    assert lines["default"].level == lines["mine"].level == "ok"
    assert "is on this disk" in lines["default"].says
    assert "context 4,096 tokens (assumed: no file says it)" in lines["served with"].says
    assert lines["on this disk"].says == "small, fetched"
    assert lines["to be fetched"].says == "none"
    assert "too large here" not in lines


@pytest.mark.parametrize(
    ("weights", "says"), [(b"\xff" * 100, "is damaged"), (b"", "is damaged"), (None, "has no weights")]
)
def test_a_damaged_model(empty_disk: Path, weights: bytes | None, says: str) -> None:
    """A model with corrupt weights, or none, is a failure that says to fetch it again."""
    folder = model(empty_disk / "mine", weights)
    if weights is None:
        (folder / "model.safetensors").unlink()
    line = lines_of(catalogue(empty_disk, entry("small", str(folder))))["default"]
    assert (line.level, says in line.says) == ("failure", True)
    assert "fetch it again" in line.remedy


def test_a_folder_that_is_gone(empty_disk: Path) -> None:
    """An entry whose folder does not exist is a failure that points to the catalogue."""
    line = lines_of(catalogue(empty_disk, entry("small", str(empty_disk / "gone"))))["small"]
    assert (line.level, "catalogue" in line.remedy) == ("failure", True)


def test_models_to_load_at_start() -> None:
    """Each model to be loaded at start is looked at, and a name that nothing allows is a failure."""
    settings = Settings(models=("qwen3-8b", "no-such-model"))
    at_start = [line for line in model_lines(settings, M2_PRO) if line.what == "at start"]
    assert [line.level for line in at_start] == ["ok", "failure"]
    assert "comes from the hub" in at_start[0].says
    assert "CELERY_MLX_MODELS" in at_start[1].remedy


def test_fake_models() -> None:
    """A fake model is said to compute nothing."""
    line = lines_of(Settings(default_model="fake:10", allow_fake=True))["default"]
    assert (line.level, "computes nothing" in line.says) == ("ok", True)


def test_a_model_of_unknown_size(empty_disk: Path) -> None:
    """An entry whose tier nothing tells is a failure that says what to add."""
    text = '[[models]]\nname = "small"\nsource = "owner/nameless"\n'
    lines = lines_of(catalogue(empty_disk, text))
    assert (lines["small"].level, "parameters_b" in lines["small"].remedy) == ("failure", True)


def test_a_broken_catalogue(empty_disk: Path) -> None:
    """A catalogue that cannot be read is one failure, which names the file."""
    (line,) = model_lines(catalogue(empty_disk, "= nonsense"), M2_PRO)
    assert (line.level, "catalogue.toml" in line.says) == ("failure", True)


def test_a_cache_of_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that this user cannot write to is a warning, because models that are not in it cannot be fetched."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100 << 30))
    monkeypatch.setattr(os, "access", lambda *_: False)
    hub, bundled = disk_lines()
    assert [hub.level, bundled.level] == ["warning", "warning"]
    assert "this user cannot write there" in hub.says
    assert (hub.remedy, bundled.remedy) == ("set HF_HOME to fetch models", "set CELERY_MLX_CACHE to fetch models")


@pytest.mark.parametrize(("free", "level"), [(100 << 30, "ok"), (5 << 30, "warning"), (100 << 20, "failure")])
def test_room_on_the_disk(free: int, level: str, monkeypatch: pytest.MonkeyPatch, empty_disk: Path) -> None:
    """Plenty of room is ok, room for small models a warning, no room a failure; folders need not exist yet."""
    asked = []

    def disk_usage(folder: Path) -> SimpleNamespace:
        asked.append(folder)
        return SimpleNamespace(free=free)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    monkeypatch.setattr(models, "cache_folder", lambda: empty_disk / "not" / "yet")
    assert [line.level for line in disk_lines()] == [level, level]
    assert asked == [empty_disk, empty_disk]


@pytest.mark.parametrize(("tokens", "level"), [(16, "ok"), (0, "note"), (None, None)])
def test_what_computes_steps(empty_disk: Path, monkeypatch: pytest.MonkeyPatch, tokens: int | None, level: str) -> None:
    """The latest trial of a model says whether numpy computes its steps; a model that was not tried has no such line."""
    monkeypatch.setattr(models, "cache_folder", lambda: empty_disk / "cache")
    folder = model(empty_disk / "bundled" / "small")
    found = [entry_of("a", folder, {"tokens": 8}), entry_of("b", folder, {"batching": "padded", "tokens": tokens})]
    KeptFile(empty_disk / "cache" / FILE).write(found if tokens is not None else [])
    line = lines_of(catalogue(empty_disk, entry("small", "bundled:small"))).get("steps")
    assert (line.level if line else None) == level
    assert line is None or not tokens or f"up to {tokens} tokens" in line.says
