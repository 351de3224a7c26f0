"""The requirements on a server name every command that the code uses."""

from __future__ import annotations

import re
from pathlib import Path

import tasks
from tasks.server.requirements import GATEWAY, PRODUCER, WORKER

SCRIPTS = Path(tasks.__file__).parent.rglob("*.lua")


def test_every_command_of_a_script_is_required() -> None:
    """A server without a command that a script calls is refused at start, and not at the script's first call."""
    called = {
        name for path in SCRIPTS for name in re.findall(r"redis\.call\('(\w+)'", path.read_text(encoding="utf-8"))
    }
    assert len(called) > 20
    assert called <= {*WORKER.commands, *GATEWAY.commands}
    assert set(PRODUCER.commands) < set(WORKER.commands)
