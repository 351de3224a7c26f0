"""What is known against models that could not be loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.errors import ModelLoadFailed
from tasks.worker.engines.failures import DEGRADED_AFTER, RETRY_MOST_S, Failures

if TYPE_CHECKING:
    import pytest


def test_however_often_it_fails(caplog: pytest.LogCaptureFixture) -> None:
    """A model that is tried again for weeks is never tried more rarely than the longest pause says."""
    failures = Failures()
    for _ in range(2000):
        failures.note("far", ModelLoadFailed("the hub is away"))
    assert caplog.messages[-1].endswith(f"it is tried again in {RETRY_MOST_S:.0f} s")
    assert "failed to load 2000 times" in failures.degraded()
    assert DEGRADED_AFTER <= 3
