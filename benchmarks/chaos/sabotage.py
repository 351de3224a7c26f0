"""Damage that the fleet cannot repair, to show that a run of chaos notices it: ``--sabotage token``."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any

from benchmarks.chaos.judge import Way
from tasks.broker.queues.references import referred
from tasks.server import keys
from worker_config.tiers import QUEUES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.chaos.fleet import Fleet
    from benchmarks.chaos.judge import Reading
    from benchmarks.chaos.load import Load

KINDS = ("token", "request", "result")


class Saboteur(threading.Thread):
    """Does each of some kinds of damage once, to a request of its own.

    Args:
        kinds: ``token`` takes one token out of a journal; ``request`` takes a request out of its queue and out of every
            record of it; ``result`` changes a stored answer.
    """

    def __init__(self, fleet: Fleet, load: Load, kinds: Sequence[str]) -> None:
        super().__init__(daemon=True)
        self._fleet = fleet
        self._load = load
        damages = {"token": self._take_token, "request": self._take_request, "result": self._change_result}
        self._left = {kind: damages[kind] for kind in kinds}
        #: Which kind was done to which request.
        self.damaged: dict[str, str] = {}

    def run(self) -> None:
        """Try until all are done or nothing runs any more."""
        while self._left and self._load.running:
            for kind, damage in list(self._left.items()):
                if task_id := damage():
                    self.damaged[task_id] = kind
                    del self._left[kind]
            time.sleep(0.005)

    def _take_token(self) -> str:
        for reading in self._whole():
            if reading.way is not Way.LATE or reading.verdict != "running":
                continue
            stream = keys.stream(reading.task_id)
            entries: Any = self._fleet.client.xrange(stream)
            for entry_id, fields in entries:
                entry = json.loads(fields[b"d"])
                if entry["type"] == "token" and entry["index"] > 0:
                    return reading.task_id if self._fleet.client.xdel(stream, entry_id) else ""
        return ""

    def _take_request(self) -> str:
        for queue in QUEUES:
            item: Any = self._fleet.client.rpop(queue)
            if item and (task_id := referred(item)) is not None:
                self._fleet.client.hdel(keys.LEDGER, task_id)
                return task_id
        return ""

    def _change_result(self) -> str:
        for reading in self._whole():
            key = f"celery-task-meta-{reading.task_id}"
            stored = self._fleet.client.get(key) if reading.way is not Way.CANCELLED else None
            if isinstance(stored, bytes):
                meta = json.loads(stored)
                meta["result"]["text"] += "!"
                return reading.task_id if self._fleet.client.set(key, json.dumps(meta), keepttl=True) else ""
        return ""

    def _whole(self) -> list[Reading]:
        """The requests that were sent and that nothing was done to."""
        return [reading for reading in self._load.readings if reading.task_id and reading.task_id not in self.damaged]
