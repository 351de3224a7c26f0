"""A worker that notes two times of its own: ``python -m benchmarks.contenders.stamped FILE CELERY-ARGUMENTS``.

When ``worker_ready`` is sent, before anyone else hears of it; and what each ``heartbeat_sent`` costs on Celery's own
thread, which it sends more often than Celery does.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from celery import signals

INTERVAL_S = 0.02
SIGNALS = 1000


class Stamps:
    """What is noted, and the file that it goes to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._noted: dict[str, Any] = {"costs_ms": []}

    def ready(self, sender: Any, **_: Any) -> None:
        """Connected before the worker's own receiver, and so called before it."""
        if "ready_at" not in self._noted:
            self._noted["ready_at"] = time.time()
            sender.hub.call_repeatedly(INTERVAL_S, self._signal)
            self._write()

    def _signal(self) -> None:
        costs: list[float] = self._noted["costs_ms"]
        if len(costs) < SIGNALS:
            started = time.perf_counter()
            signals.heartbeat_sent.send(sender=self)
            costs.append((time.perf_counter() - started) * 1000)
            if len(costs) % 50 == 0:
                self._write()

    def _write(self) -> None:
        scratch = self._path.with_suffix(".new")
        scratch.write_text(json.dumps(self._noted))
        scratch.rename(self._path)


def main() -> None:
    """Run Celery's command line with the stamps in it."""
    from celery.__main__ import main as celery

    stamps = Stamps(Path(sys.argv.pop(1)))
    signals.worker_ready.connect(stamps.ready, weak=False)
    celery()


if __name__ == "__main__":
    main()
