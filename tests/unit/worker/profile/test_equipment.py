"""What a worker needs of its machine before it starts; tests/integration/test_start.py has the same from the outside."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from benchmarks.parts.tiny_model import make_tiny_model
from tasks.hardware import detect
from tasks.worker.profile import equipment
from tasks.worker.profile.equipment import Unequipped, require_equipment
from worker_config.catalogue import load_catalogue
from worker_config.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

NOBODY_KNOWS = (sys.executable, "-c", "raise SystemExit(1)")
AWAY = (sys.executable, "-c", """print('{"hub": "http://hub", "hub_error": "ConnectError: no route\\\\nmore"}')""")
THERE = (sys.executable, "-c", """print('{"hub": "http://hub", "hub_error": ""}')""")


@pytest.fixture
def require(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Looks at this machine, which has no model but what is in the folder ``models``, with the hub in reach."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr("worker_config.cache.cache_folder", lambda: tmp_path / "cache")
    catalogue = tmp_path / "catalogue.toml"
    catalogue.write_text(
        f'allow_paths = ["{tmp_path / "models"}"]\n[[models]]\nname = "mine"\nsource = "{tmp_path / "models" / "mine"}"\n'
    )

    def run(probe: Sequence[str] = THERE, **values: object) -> None:
        settings = Settings(catalogue=str(catalogue), memory_gb=8.0, **values)  # type: ignore[arg-type]
        require_equipment(settings, load_catalogue(settings), detect(settings), probe)

    return run


def test_a_hub_that_answers_is_enough(require: Callable[..., None], caplog: pytest.LogCaptureFixture) -> None:
    """A fresh machine starts where models can be fetched, and is told of the default one, which no hub has."""
    require()
    assert "the default model smollm2-135m is not on this machine" in caplog.text
    require(default_model="qwen3-4b")
    require(models=("qwen3-0.6b",))
    assert caplog.text.count("the default model") == 1


@pytest.mark.parametrize(("ago_s", "passing"), [(5.0, True), (3600.0, False)])
def test_mlx_is_missing(
    require: Callable[..., None], monkeypatch: pytest.MonkeyPatch, ago_s: float, passing: bool
) -> None:
    """Where packages are being installed it may be on its way, and a service manager tries again."""
    monkeypatch.setattr(equipment, "find_spec", lambda name: None if name == "mlx_lm" else True)
    monkeypatch.setattr(equipment, "installed_s", lambda: ago_s)
    with pytest.raises(Unequipped, match=r"^MLX: mlx-lm (was removed a moment ago|is not installed)") as caught:
        require()
    assert caught.value.passing is passing


def test_a_hub_that_is_away(require: Callable[..., None]) -> None:
    """Without a model that is a reason not to start, for now; where nobody can tell it is none."""
    with pytest.raises(
        Unequipped, match=r"the hub http://hub does not answer \(ConnectError: no route\): run"
    ) as caught:
        require(AWAY)
    assert caught.value.passing
    require(NOBODY_KNOWS)


def test_a_model_of_ones_own_is_enough(
    require: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that requests may name will do, offline too."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(Unequipped, match="no model is on this machine"):
        require()
    make_tiny_model(tmp_path / "models" / "other")
    require()


def test_a_model_that_is_kept_has_to_be_whole(require: Callable[..., None], tmp_path: Path) -> None:
    """A folder that is not there, or that tells no size, is named with the setting."""
    with pytest.raises(Unequipped, match=r"CELERY_MLX_MODELS: model 'mine': .*/mine does not exist"):
        require(models=("mine",))
    (tmp_path / "models" / "mine").mkdir(parents=True)
    with pytest.raises(
        Unequipped, match=r"CELERY_MLX_MODELS: model 'mine': neither its name nor its files tell its size"
    ):
        require(models=("mine",))


def test_a_name_that_stands_twice_counts_once(require: Callable[..., None]) -> None:
    """Room for a model once is room enough."""
    model = "fake:1:weights_mb=4000"
    require(allow_fake=True, models=(model, model))
    with pytest.raises(Unequipped, match=r"needs fake:1:weights_mb=4000 4\.\d\d GB, fake:2"):
        require(allow_fake=True, models=(model, "fake:2:weights_mb=4000"))
