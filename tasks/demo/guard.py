"""The parent of one process that must not outlive its owner, however the owner ends.

    python -m tasks.demo.guard GRACE_S LOG REMOVE COMMAND...

The owner holds the other end of the guard's standard input. When that end closes, because the owner closed it or died
by kill -9, the guard sends SIGTERM to the process, SIGKILL to its whole group after ``GRACE_S`` seconds, and removes
the folder ``REMOVE`` (none if empty). SIGTERM to the guard does the same; SIGQUIT kills at once. The process's output
goes to the end of the file ``LOG``. The guard's first line of output is the process's id, or why there is none; its
exit status is the process's.

It imports the standard library alone, because it must start in milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path


def die_with_parent() -> None:
    """Ask Linux to kill this process when the guard dies of kill -9. Other systems have no such call."""
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def kill_group(leader: int) -> None:
    """Kill the remaining processes of a group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS says EPERM of a group of zombies
        os.killpg(leader, signal.SIGKILL)


class Guard:
    """One guarded process."""

    def __init__(self, command: list[str], log: Path, grace_s: float) -> None:
        self.grace_s = grace_s
        self.stopping = False
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,
                preexec_fn=die_with_parent,  # noqa: PLW1509 -- the guard has no second thread yet
            )

    def run(self) -> int:
        """Wait for the process, or for the owner's end and then the process's; returns its exit status."""
        # Only now: a signal that is ignored would be ignored in the process too.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: self.terminate())
        signal.signal(signal.SIGQUIT, lambda *_: self.kill())
        threading.Thread(target=self.watch_owner, daemon=True).start()
        status = self.process.wait()
        kill_group(self.process.pid)
        return status if status >= 0 else 128 - status

    def watch_owner(self) -> None:
        """Stop the process when the owner's end of the pipe closes."""
        while os.read(sys.stdin.fileno(), 4096):
            pass
        self.terminate()

    def terminate(self) -> None:
        """SIGTERM, then SIGKILL when the time limit is over."""
        if self.stopping:
            return
        self.stopping = True
        self.process.terminate()
        limit = threading.Timer(self.grace_s, kill_group, (self.process.pid,))
        limit.daemon = True
        limit.start()

    def kill(self) -> None:
        """SIGKILL, to the whole group."""
        self.stopping = True
        kill_group(self.process.pid)


def main() -> int:
    """Run the guard with the command line's arguments."""
    grace_s, log, remove, *command = sys.argv[1:]
    try:
        guard = Guard(command, Path(log), float(grace_s))
    except OSError as error:
        sys.stdout.write(f"{error.strerror}\n")
        return 127
    sys.stdout.write(f"{guard.process.pid}\n")
    sys.stdout.flush()
    status = guard.run()
    # A process that was not ended by us leaves its folder: the owner reads the log in it, then removes it.
    if remove and (guard.stopping or status == 0):
        shutil.rmtree(remove, ignore_errors=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
