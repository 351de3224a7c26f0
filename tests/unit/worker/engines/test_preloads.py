"""Loads that no request waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from tasks.errors import ModelLoadFailed
from tasks.worker.engines.changes import Changes
from tasks.worker.engines.preloads import Preloads
from tests.support import wait_until
from worker_config.catalogue import ModelEntry
from worker_config.tiers import TIERS

if TYPE_CHECKING:
    from tasks.worker.engines.loading import Loading

ENTRY = ModelEntry(name="fake:0", kind="fake", source="0", tier=TIERS[0])


class NoEngines:
    """In the place of what is loaded: nothing is, and nothing has failed."""

    def __init__(self) -> None:
        self.engines: dict[Any, Any] = {}
        self.failed: list[str] = []
        self.failures = self
        self.outdated = ""

    def error_of(self, _model: str) -> None:
        return

    def fail(self, entry: ModelEntry, _error: Exception) -> None:
        self.failed.append(entry.name)


@pytest.mark.parametrize("fails", [False, True])
def test_the_end_is_announced(fails: bool) -> None:
    """Once nothing is active any more: until then a worker says that it loads, and its next heartbeat may be far away."""
    changes, loading = Changes(), NoEngines()
    announced: list[bool] = []

    def acquire(_entry: ModelEntry) -> Any:
        if fails:
            raise ModelLoadFailed("it cannot be loaded")

    preloads = Preloads(
        changes, cast("Loading", loading), acquire, lambda _engine: None, lambda: announced.append(preloads.active)
    )
    with changes.deciding() as actions:
        actions.extend(preloads.begin(ENTRY))
        assert preloads.active
    wait_until(lambda: announced)
    assert announced == [False]
    assert loading.failed == ([ENTRY.name] if fails else [])
