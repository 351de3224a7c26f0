"""A worker says which tiers the models on its disk are of."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tasks.worker.profile.survey import Survey
from worker_config.catalogue import Catalogue
from worker_config.hub import complete_mark
from worker_config.model_entry import ModelEntry
from worker_config.tiers import tier_named
from worker_config.units import GIB

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_what_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By their files. A model that is not here as a whole, and one that is pinned, are not named; a damaged one does no harm."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    for name in ("Odd-70B", "Pinned-70B", "Broken-70B", "Partial-70B"):
        snapshot = tmp_path / f"models--acme--{name}" / "snapshots" / "main"
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text("{}")
        (snapshot / "model.safetensors").write_bytes(b"")
        index = {"metadata": {"total_size": GIB, "total_parameters": 1_000_000_000}, "weight_map": {}}
        (snapshot / "model.safetensors.index.json").write_text(json.dumps(index) if name != "Broken-70B" else "{")
        if name != "Partial-70B":
            complete_mark(snapshot).touch()
    entries = {
        name: ModelEntry(name=name, kind="hub", source=f"acme/{name}", tier=tier)
        for name, tier in (
            ("Odd-70B", None),
            ("Pinned-70B", tier_named("30B+")),
            ("Broken-70B", None),
            ("Partial-70B", None),
            ("Absent-70B", None),
        )
    }
    heard: list[bool] = []
    survey = Survey(Catalogue(models=entries), lambda: heard.append(True))
    survey.run()
    assert survey.tiers.get("Odd-70B") == "tier-under-3B"
    assert survey.tiers.keys() <= {"Odd-70B", "Broken-70B"}
    assert heard == [True]
