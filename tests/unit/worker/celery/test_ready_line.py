"""What a worker says once it is ready."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tasks.hardware import detect
from tasks.worker.celery.ready_line import ready_line, served_models
from tasks.worker.profile.capacity import Capacity
from tasks.worker.profile.profile import Profile
from tasks.worker.profile.slots import Slots
from worker_config.catalogue import load_catalogue
from worker_config.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path


def worker(*models: str, queues: tuple[str, ...] = ("tier-under-3B",), slots: int = 10) -> Profile:
    """A worker's profile."""
    settings = Settings(models=models)
    catalogue = load_catalogue(settings)
    return Profile(settings, catalogue, "celery@mac", list(queues), Capacity.of(detect(settings), Slots({}, slots)))


@pytest.fixture(autouse=True)
def _own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")


def test_slots_tiers_and_what_is_kept() -> None:
    """A sentence without what there is none of."""
    said, fields = ready_line(worker("fake:1", slots=1))
    assert said.startswith("celery@mac is ready: 1 slot for tier <3B; loads now: fake:1; ")
    assert fields["tiers"] == ["<3B"]
    said, fields = ready_line(worker(queues=("default",)))
    assert said.startswith("celery@mac is ready: 10 slots. Send a request: celery -A tasks ask ")


def test_many_models_are_counted() -> None:
    """The fields have them all."""
    said, fields = ready_line(worker(queues=("tier-under-3B", "tier-3-7B")))
    assert "10 slots for tiers <3B, 3-7B; " in said
    others = fields["models_on_hub"]
    assert f"from the hub at first use: {', '.join(others[:3])} and {len(others) - 3} more. Send" in said


def test_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that may not be asked has nothing to offer."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "from the hub" not in ready_line(worker())[0]


def test_models_of_other_tiers_are_not_named() -> None:
    """Nor those whose entry is wrong: whoever asks for one of these learns it."""
    entries = load_catalogue(Settings()).models.values()
    _, small = served_models(entries, ["tier-under-3B"])
    _, large = served_models(entries, ["tier-30B-plus"])
    assert small
    assert large
    assert not set(small) & set(large)
