"""A gateway, spoken to over HTTP as the peer is."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.contenders.completions import answers, asker
from benchmarks.processes import guarded, start, wait_for
from tasks.demo.embedded import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psutil

    from benchmarks.bench import Bench
    from benchmarks.load import Ask


@dataclass(frozen=True)
class Gateway:
    """A gateway's process, and what asks it."""

    ask: Ask
    process: psutil.Process


@contextmanager
def gateway(bench: Bench, model: str) -> Iterator[Gateway]:
    """A gateway that is asked for this model; it runs for as long as the block does."""
    port = free_port()
    env = {"CELERY_MLX_GATEWAY_FILES": str(bench.folder / "files")}
    process = start(
        bench, "gateway", [sys.executable, "-m", "celery", "-A", "tasks", "gateway", "--port", str(port)], env
    )
    try:
        wait_for(lambda: answers(port), "the gateway", process)
        yield Gateway(asker(port, model), guarded(process.pid))
    finally:
        process.stop()
