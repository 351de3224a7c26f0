"""The Lua scripts that write journals, read from the files beside this one."""

from __future__ import annotations

from importlib.resources import files

from tasks.server.script import Script


def _read(name: str) -> Script:
    return Script(files(__name__).joinpath(f"{name}.lua").read_text(encoding="utf-8"))


CLAIM = _read("claim")
APPEND = _read("append")
FILL = _read("fill")
END = _read("end")
