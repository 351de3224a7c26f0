"""The messages of a process that fetches a model: one JSON object a line. The process ends when it makes no progress."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any

from tasks.messages.encoding import to_json

LOOK_S = 0.25
KEPT = ": the fetched part is kept, try again"


class Speaker:
    """The process's side of its protocol: lines of JSON, and an end when nothing has come for too long.

    Args:
        about: the model that is fetched, for messages.
        timeout_s: the longest that it may take in all.
        stall_s: the longest without anything coming, from the first report on. What is before that is no wait for the hub.
    """

    def __init__(self, about: str, timeout_s: float, stall_s: float) -> None:
        self._about = about
        self._timeout_s = timeout_s
        self._stall_s = stall_s
        self._started = self._moved = time.monotonic()
        self._last: tuple[float | None, str] = (None, "")
        self._lock = threading.Lock()

    def report(self, fraction: float | None, about: str) -> None:
        """See :data:`Report`."""
        with self._lock:
            if (fraction, about) != self._last:
                self._last, self._moved = (fraction, about), time.monotonic()
                self._say(fraction=fraction, about=about)

    def end(self, **values: Any) -> None:
        """Say how it ended, and end the process: threads of the client may hang."""
        with self._lock:
            self._say(**values)
            os._exit(1 if "error" in values else 0)

    def watch(self) -> None:
        """End the process when its time is over, or its parent has gone. On a thread of its own."""
        threading.Thread(target=self._watch_parent, name="parent", daemon=True).start()
        while True:
            time.sleep(LOOK_S)
            if trouble := self.trouble(time.monotonic()):
                self.end(error=trouble)

    def trouble(self, now: float) -> str:
        """Return why the process has to end at this monotonic time; empty if it may go on."""
        if now - self._started > self._timeout_s:
            return f"{self._about} was not fetched within {self._timeout_s:g} s{KEPT} (download_timeout_s)"
        asked = self._last[1]
        if asked and not asked.startswith("waiting") and now - self._moved > self._stall_s:
            return f"nothing of {self._about} came from the hub for {self._stall_s:g} s{KEPT} (download_stall_s)"
        return ""

    @staticmethod
    def _watch_parent() -> None:
        while sys.stdin.buffer.read(1):
            continue
        os._exit(1)

    @staticmethod
    def _say(**values: Any) -> None:
        try:
            sys.stdout.write(to_json(values) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            os._exit(1)
