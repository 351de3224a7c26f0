"""One engine of whatever version is on the path: how long it loads, and what it computes in a second. Run as a file."""

from __future__ import annotations

import json
import resource
import sys
import time

from tasks.messages.engine import EngineConfig

# This file also runs before an older checkout, whose tests have the client of its engine. No other benchmark imports tests.
from tests.engine_client import EngineClient

ROWS, TOKENS = 16, 96
PROMPT = "Question {}: what does a lighthouse keeper do all day, and what does he think of when the fog comes in?"


def main(folder: str) -> None:
    """Load, then decode rows beside each other; prints one JSON object."""
    started = time.perf_counter()
    with EngineClient(EngineConfig(model="bundled", source=folder, max_batch=ROWS)) as engine:
        assert engine.ready
        loaded = time.perf_counter()
        tasks = [engine.submit(PROMPT.format(row), TOKENS) for row in range(ROWS)]
        tokens = sum(len(engine.answer(task_id).ids) for task_id in tasks)
        decoded = time.perf_counter()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    figures = {"load_s": loaded - started, "tokens_per_s": tokens / (decoded - loaded)}
    # Linux counts in KiB, macOS in bytes: a ratio of two turns on one machine is the same.
    print(json.dumps({**figures, "processor_s": used.ru_utime + used.ru_stime, "peak_memory": used.ru_maxrss}))


if __name__ == "__main__":
    main(sys.argv[1])
