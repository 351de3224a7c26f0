"""Where caches are kept."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from worker_config.cache import bundled_folder, cache_folder
from worker_config.settings import current_settings

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def fresh_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Settings that are read again now, and once more after the test."""
    monkeypatch.delenv("CELERY_MLX_CACHE", raising=False)
    current_settings.cache_clear()
    yield
    current_settings.cache_clear()


@pytest.mark.parametrize(
    ("platform", "xdg", "expected"),
    [
        ("linux", "", ".cache/celery-mlx"),
        ("linux", "relative", ".cache/celery-mlx"),
        ("linux", "/var/cache", "/var/cache/celery-mlx"),
        ("darwin", "/var/cache", "Library/Caches/celery-mlx"),
    ],
)
def test_platforms_have_their_own_folders(
    platform: str, xdg: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux keeps to the XDG specification, macOS to its own folder."""
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv("XDG_CACHE_HOME", xdg)
    assert cache_folder() == Path.home() / expected


def test_the_setting_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """``CELERY_MLX_CACHE`` beats the platform, and ~ in it is the home folder."""
    monkeypatch.setenv("CELERY_MLX_CACHE", "~/models")
    assert cache_folder() == Path.home() / "models"
    assert bundled_folder("smollm2-135m").parent.parent == Path.home() / "models"
    assert bundled_folder("smollm2-135m").name == "smollm2-135m"
