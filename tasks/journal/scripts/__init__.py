"""The Lua scripts that write journals, read from the files beside this one."""

from __future__ import annotations

from importlib.resources import files

from tasks.server.script import Script


def source(name: str) -> str:
    """The text of one script."""
    return files(__name__).joinpath(f"{name}.lua").read_text(encoding="utf-8")


#: What stands before the scripts that write a claim.
CLAIMING = source("claiming")
CLAIM = Script(CLAIMING + source("claim"))
APPEND = Script(source("append"))
FILL = Script(source("fill"))
END = Script(source("end"))
