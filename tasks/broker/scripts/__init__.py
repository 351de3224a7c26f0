"""The Lua scripts of the queues, read from the files beside this one."""

from __future__ import annotations

from functools import partial

from tasks.server.script import read_script

source = partial(read_script, __name__)
