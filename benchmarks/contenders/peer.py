"""The peer: ``mlx_lm.server``, spoken to over HTTP with streaming, as its users do.

``python -m benchmarks.contenders.peer ARGUMENTS`` is ``mlx_lm.server`` with the optimised BLAS that ours has, too.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from benchmarks.contenders.completions import answers, asker
from benchmarks.parts.engine import contender_environment
from benchmarks.processes import start, wait_for
from tasks.demo.embedded import free_port
from tasks.engine.model.blas import load_blas

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.bench import Bench
    from benchmarks.load import Ask


@contextmanager
def peer(bench: Bench, model: Path) -> Iterator[Ask]:
    """Asks a server that runs for as long as the block does."""
    import sys

    port = free_port()
    arguments = ["--model", str(model), "--port", str(port), "--log-level", "WARNING"]
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.contenders.peer", *arguments]
    process = start(bench, "mlx_lm.server", command, contender_environment())

    try:
        wait_for(lambda: answers(port), "mlx_lm.server", process)
        yield asker(port)
    finally:
        process.stop()


if __name__ == "__main__":
    load_blas()
    from mlx_lm.server import main

    main()
