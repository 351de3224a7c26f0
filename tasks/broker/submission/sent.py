"""The requests that this process has queued in the last minutes. If Redis has lost one, its reader sends it again."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from tasks.broker.submission.put import queue_one
from tasks.server import keys

if TYPE_CHECKING:
    import redis

    from tasks.broker.submission.put import Put

#: Longer than a reader takes to believe that Redis has lost its request (:data:`tasks.broker.waiting.result_watch.LOST_AFTER_S`).
KEEP_S = 120.0
MOST_BYTES = 16 * 2**20


class _Note(NamedTuple):
    put: Put
    at: float


class Sent:
    """The requests by id, the newest within bounds. Any thread may call it.

    Args:
        keep_s: how long a request is kept, in seconds.
        most_bytes: of all messages together.
    """

    def __init__(self, keep_s: float = KEEP_S, most_bytes: int = MOST_BYTES) -> None:
        self._keep_s = keep_s
        self._most_bytes = most_bytes
        #: When a request was sent again; ``inf`` while it is.
        self._again: dict[str, float] = {}
        self._notes: OrderedDict[str, _Note] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._notes)

    def note(self, put: Put) -> None:
        """Keep a request that Redis has queued."""
        now = time.monotonic()
        with self._lock:
            self._drop(put.task_id)
            self._notes[put.task_id] = _Note(put, now)
            self._bytes += len(put.text)
            while self._notes and (self._bytes > self._most_bytes or self._oldest.at < now - self._keep_s):
                self._drop(self._oldest.put.task_id)

    def forget(self, task_id: str) -> None:
        """Keep nothing of a request, as in a process that has not sent it."""
        with self._lock:
            self._drop(task_id)

    def send_again(self, client: redis.Redis, task_id: str, looked_at: float) -> bool:
        """Queue a request that Redis has lost, once; whether this process did that, now or since the caller's look began.

        Redis keeps a fingerprint of each request from its ``delay`` on: where that is still there, nothing was lost, and
        whatever is missing of the request has expired or was deleted.

        Args:
            client: answers in bytes.
            task_id: the request.
            looked_at: when the caller began to look for the request in vain, by :func:`time.monotonic`. A look that began
                before another thread has sent the request again may have missed it.
        """
        with self._lock:
            note = self._drop(task_id)
            if note is None:
                return self._again.get(task_id, -math.inf) >= looked_at
            forgotten = time.monotonic() - self._keep_s
            self._again = {known: at for known, at in self._again.items() if at > forgotten} | {task_id: math.inf}
        sent = False
        try:
            sent = not client.exists(keys.request(task_id)) and queue_one(client, note.put) is None
        finally:
            with self._lock:
                self._again[task_id] = time.monotonic() if sent else -math.inf
        return sent

    @property
    def _oldest(self) -> _Note:
        return next(iter(self._notes.values()))

    def _drop(self, task_id: str) -> _Note | None:
        note = self._notes.pop(task_id, None)
        if note is not None:
            self._bytes -= len(note.put.text)
        return note


#: Those of this process.
SENT = Sent()
