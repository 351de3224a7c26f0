"""What an engine took comes back: the memory of the process tree, files and threads, however often models are loaded."""

from __future__ import annotations

import gc
import threading
from typing import TYPE_CHECKING, cast

import psutil
import pytest

from tasks.worker.engines import Engines
from tests.support import wait_until
from worker_config.catalogue_file import ModelEntry
from worker_config.settings import Settings

if TYPE_CHECKING:
    from tasks.worker.publisher import Publisher

CYCLES = 50
WEIGHTS_MB = 64
MIB = 1 << 20
ENTRY = ModelEntry(name=f"fake:0:weights_mb={WEIGHTS_MB}", kind="fake", source="0")


class Nowhere:
    """In the publisher's place."""

    def put(self, items: object) -> None:
        """Nothing is published."""


def tree_bytes() -> int:
    """Resident memory of this process and all below it."""
    own = psutil.Process()
    return sum(each.memory_info().rss for each in (own, *own.children(recursive=True)))


@pytest.mark.timeout(240)
def test_fifty_cycles_leave_it_flat() -> None:
    """A loaded model's memory is there to see; each unload gives it back to the system, and nothing is left of fifty."""
    engines = Engines(Settings(), 10**9, "cpu", 4, cast("Publisher", Nowhere()), on_step=lambda _engine, _output: None)
    own = psutil.Process()
    loaded: list[int] = []
    unloaded: list[int] = []
    before = 0
    try:
        for cycle in range(CYCLES):
            engines.release(engines.acquire(ENTRY))
            loaded.append(tree_bytes())
            engines.unload(ENTRY.name)
            wait_until(lambda: not engines.states())
            gc.collect()
            unloaded.append(tree_bytes())
            if cycle == 1:
                before = own.num_fds() + threading.active_count()
        wait_until(lambda: own.num_fds() + threading.active_count() <= before, about="files and threads are let go")
        wait_until(lambda: not own.children(), about="no process is left")
    finally:
        engines.close()
    assert engines.loads == CYCLES
    assert min(loaded) - max(unloaded) > WEIGHTS_MB * MIB
    assert max(unloaded[-10:]) - min(unloaded[:10]) < 8 * MIB
