"""The Lua scripts that write journals, read from the files beside this one."""

from __future__ import annotations

from functools import partial

from tasks.server.script import Script, read_script

source = partial(read_script, __name__)

#: What stands before the scripts that write a claim.
CLAIMING = source("claiming")
CLAIM = Script(CLAIMING + source("claim"))
APPEND = Script(source("append"))
FILL = Script(source("fill"))
END = Script(source("end"))
