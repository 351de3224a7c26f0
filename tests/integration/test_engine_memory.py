"""What an engine took comes back: the memory of the process tree, files and threads, however often models are loaded."""

from __future__ import annotations

import gc
import threading
from typing import TYPE_CHECKING, cast

import psutil
import pytest

from benchmarks.parts.tiny_model import make_tiny_model
from tasks.models.key import key_of
from tests.engines import engines_with
from tests.support import wait_until
from worker_config.model_entry import ModelEntry

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.worker.attempts.publisher import Publisher

CYCLES = 50
WEIGHTS_MB = 64
MIB = 1 << 20
ENTRY = ModelEntry(name=f"fake:0:weights_mb={WEIGHTS_MB}", kind="fake", source="0")


class Nowhere:
    """In the publisher's place."""

    def put(self, items: object) -> None:
        """Nothing is published."""

    def write(self, items: object) -> None:
        """Nor written."""


def tree_bytes() -> int:
    """Resident memory of this process and all below it."""
    own = psutil.Process()
    return sum(process.memory_info().rss for process in (own, *own.children(recursive=True)))


@pytest.mark.timeout(900)
def test_a_real_model_gives_its_memory_back(tmp_path: Path) -> None:
    """So does an engine that computes with MLX."""
    folder = make_tiny_model(tmp_path / "tiny", hidden_size=512)
    entry = ModelEntry(name="tiny", kind="path", source=str(folder))
    engines = engines_with(cast("Publisher", Nowhere()), 4 << 30)
    sizes: list[tuple[int, int]] = []
    others = set(psutil.Process().children())
    try:
        for _ in range(3):
            engines.release(engines.acquire(entry))
            loaded = tree_bytes()
            engines.unload(key_of(entry))
            wait_until(lambda: not engines.states())
            gc.collect()
            sizes.append((loaded, tree_bytes()))
    finally:
        engines.close()
    wait_until(lambda: set(psutil.Process().children()) <= others, about="no process is left")
    assert all(loaded - unloaded > folder_bytes(folder) for loaded, unloaded in sizes)
    assert abs(sizes[-1][1] - sizes[0][1]) < 8 * MIB


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


@pytest.mark.timeout(900)
def test_fifty_cycles_leave_it_flat() -> None:
    """A loaded model's memory is there to see; each unload gives it back to the system, and nothing is left of fifty."""
    engines = engines_with(cast("Publisher", Nowhere()))
    own = psutil.Process()
    others = set(own.children())
    loaded: list[int] = []
    unloaded: list[int] = []
    before = 0
    try:
        for cycle in range(CYCLES):
            engines.release(engines.acquire(ENTRY))
            loaded.append(tree_bytes())
            engines.unload(key_of(ENTRY))
            wait_until(lambda: not engines.states())
            gc.collect()
            unloaded.append(tree_bytes())
            if cycle == 1:
                before = own.num_fds() + threading.active_count()
        wait_until(lambda: own.num_fds() + threading.active_count() <= before, about="files and threads are let go")
        wait_until(lambda: set(own.children()) <= others, about="no process is left")
    finally:
        engines.close()
    assert engines.loads == CYCLES
    assert min(loaded) - max(unloaded) > WEIGHTS_MB * MIB
    assert max(unloaded[-10:]) - min(unloaded[:10]) < 8 * MIB
