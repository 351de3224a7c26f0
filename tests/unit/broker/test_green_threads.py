"""Producers whose program runs on green threads."""

from __future__ import annotations

import subprocess
import sys

from tests.support import ROOT

#: What kombu looks at to tell that gevent has patched this process; gevent itself is not installed here.
PROGRAM = """
import socket, sys, threading
from types import ModuleType
gevent, sockets, events = (ModuleType(f"gevent{part}") for part in ("", ".socket", ".event"))
gevent.socket, sockets.socket, events.Event = sockets, socket.socket, threading.Event
gevent.spawn, gevent.sleep = print, print
sys.modules.update({"gevent": gevent, "gevent.socket": sockets, "gevent.event": events})
from kombu.utils.compat import detect_environment
assert detect_environment() == "gevent"
from celery.backends.asynchronous import Drainer
from tasks import app
assert type(app.backend.result_consumer.drainer) is Drainer, app.backend.result_consumer.drainer
"""


def test_nothing_turns_in_a_circle() -> None:
    """Celery has a green thread ask for results without a pause, and ours comes without waiting: nobody else would ever run."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
