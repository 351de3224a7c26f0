"""Damage that the fleet cannot repair, to show that a run of chaos notices it: ``--sabotage token``."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from typing import TYPE_CHECKING, Any

from benchmarks.chaos.judge import Way
from tasks.server import keys
from worker_config.tiers import QUEUES

if TYPE_CHECKING:
    from benchmarks.chaos.fleet import Fleet
    from benchmarks.chaos.load import Load

KINDS = ("token", "request", "result")


class Saboteur(threading.Thread):
    """Does one kind of damage, once.

    Args:
        kind: ``token`` takes one token out of a journal; ``request`` takes a request out of its queue and out of every
            record of it; ``result`` changes a stored answer.
    """

    def __init__(self, fleet: Fleet, load: Load, kind: str) -> None:
        super().__init__(daemon=True)
        self._fleet = fleet
        self._load = load
        self._damage = {"token": self._take_token, "request": self._take_request, "result": self._change_result}[kind]
        self.done = False

    def run(self) -> None:
        """Try until it succeeds or nothing runs any more."""
        while not self.done and self._load.running:
            with contextlib.suppress(IndexError):
                self.done = self._damage()
            time.sleep(0.005)

    def _take_token(self) -> bool:
        for reading in list(self._load.readings):
            if reading.way is not Way.LATE or reading.verdict != "running" or not reading.task_id:
                continue
            stream = keys.stream(reading.task_id)
            entries: Any = self._fleet.client.xrange(stream)
            for entry_id, fields in entries:
                entry = json.loads(fields[b"d"])
                if entry["type"] == "token" and entry["index"] > 0:
                    return bool(self._fleet.client.xdel(stream, entry_id))
        return False

    def _take_request(self) -> bool:
        for queue in QUEUES:
            if message := self._fleet.client.rpop(queue):
                assert isinstance(message, bytes)
                task_id = json.loads(message)["headers"]["id"]
                self._fleet.client.hdel(keys.LEDGER, task_id)
                return True
        return False

    def _change_result(self) -> bool:
        for reading in list(self._load.readings):
            key = f"celery-task-meta-{reading.task_id}"
            stored = self._fleet.client.get(key) if reading.way is not Way.CANCELLED and reading.task_id else None
            if isinstance(stored, bytes):
                meta = json.loads(stored)
                meta["result"]["text"] += "!"
                return bool(self._fleet.client.set(key, json.dumps(meta), keepttl=True))
        return False
