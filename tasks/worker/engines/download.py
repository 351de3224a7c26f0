"""A model on its way from the hub, fetched by a process of its own: the hub's client is no part of a worker."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.errors import ModelLoadFailed
from tasks.messages.registry import EngineState
from tasks.models.footprint import Source
from tasks.names import PACKAGE
from tasks.worker.cores import spread
from tasks.worker.engines.process import ending
from worker_config.settings import child_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import IO

    from worker_config.catalogue import ModelEntry
    from worker_config.settings import Settings

logger = logging.getLogger(__name__)

#: The part of a download after which the log has another line.
LOG_FRACTION = 0.1
LAST_WORDS = 2000


class Download:
    """One download, from its start to its end. Its progress may be read at any time.

    Args:
        entry: a model of the hub.
        settings: the time-outs.
        on_change: called, on this download's thread, whenever it has got on, and at its end.
        refresh: whether the hub is asked for news although all of the model is here.
        cores: those that the process may use; with none it has the ones of the thread that starts it.
        fault_of: why a process with these last words cannot be started from what is installed; empty if it can.
    """

    def __init__(
        self,
        entry: ModelEntry,
        settings: Settings,
        on_change: Callable[[Download], None] = lambda _: None,
        *,
        refresh: bool = False,
        cores: Collection[int] = (),
        fault_of: Callable[[str], str] = lambda _: "",
    ) -> None:
        self.entry = entry
        self.fraction: float | None = None
        self.about = ""
        self.source: Source | None = None
        self.error: ModelLoadFailed | None = None
        #: Whether a signal ended it, unasked: that is neither the model's fault nor the hub's.
        self.killed = False
        #: Why it cannot be started from what is installed now; empty if it can.
        self.outdated = ""
        self._fault_of = fault_of
        self._on_change = on_change
        self._logged = 0.0
        self._stopped = False
        self._ended = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        command = [sys.executable, "-m", f"{PACKAGE}.engine.files.download", entry.source]
        command += ["--revision", entry.revision] if entry.revision else []
        command += ["--refresh"] if refresh else []
        command += ["--timeout-s", str(settings.download_timeout_s), "--stall-s", str(settings.download_stall_s)]
        self._command = command
        self._cores = cores

    def start(self) -> None:
        """Start the process. A machine that is out of processes is this download's error."""
        logger.info("fetching model %s (%s)", self.entry.name, self.entry.source)
        try:
            with spread(self._cores):
                process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,  # its end tells the process that we are gone
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=child_environment(),
                    text=True,
                    encoding="utf-8",
                    errors="replace",
                )
        except OSError as error:
            self.error = ModelLoadFailed(f"model {self.entry.name!r}: no process could be started to fetch it: {error}")
            self._ended.set()
            self._on_change(self)
            return
        self._process = process
        if self._stopped:
            process.kill()
        threading.Thread(target=self._follow, args=(process,), name=f"download-{process.pid}", daemon=True).start()

    @property
    def pid(self) -> int | None:
        """The process's id; ``None`` before :meth:`start`."""
        return self._process.pid if self._process is not None else None

    def state(self) -> EngineState:
        """Return its state for the registry."""
        return EngineState(
            model=self.entry.name, state="downloading", fraction=self.fraction, pid=self.pid, reason=self.about
        )

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self.source is not None or self.error is not None

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for its end; ``False`` if that took too long."""
        return self._ended.wait(timeout_s)

    def stop(self) -> None:
        """End it; the fetched part is kept for the next one."""
        self._stopped = True
        if self._process is not None:
            self._process.kill()
            self.wait()

    def _follow(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        words: list[str] = []
        listener = threading.Thread(target=_listen, args=(process.stderr, words), daemon=True)
        listener.start()
        with process, process.stdout:
            for line in process.stdout:
                self._take(line)
            assert process.stdin is not None
            process.stdin.close()
            process.wait()
            listener.join()
        if not self.done:
            last_words = "".join(words).strip()[-LAST_WORDS:]
            self.killed = process.returncode < 0
            self.outdated = "" if self.killed else self._fault_of(last_words)
            self.error = ModelLoadFailed(
                f"model {self.entry.name!r}: the process that fetches it {ending(process.returncode)}"
                + (f"; its last words:\n{last_words}" if last_words else "")
            )
        if self.source is not None:
            logger.info("model %s is on this machine: %s", self.entry.name, self.source.path)
        try:
            self._on_change(self)
        finally:
            self._ended.set()

    def _take(self, line: str) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            logger.debug("not a line of the protocol: %.200r", line)
            return
        if "folder" in message:
            folder = Path(message["folder"])
            self.fraction, self.source = 1.0, Source(str(folder), folder.name)
        elif "error" in message:
            self.outdated = self._fault_of(message["error"])
            self.error = ModelLoadFailed(message["error"])
        else:
            self.fraction, self.about = message.get("fraction"), str(message.get("about", ""))
            self._log()
            self._on_change(self)

    def _log(self) -> None:
        if self.fraction is None:
            logger.info("model %s: %s", self.entry.name, self.about)
        elif self.fraction >= self._logged + LOG_FRACTION:
            self._logged = self.fraction
            logger.info("model %s: %.0f %% fetched, %s", self.entry.name, 100 * self.fraction, self.about)


def _listen(stderr: IO[str], words: list[str]) -> None:
    for line in stderr:
        words.append(line)
        del words[:-50]
