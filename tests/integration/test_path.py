"""The path of a request's messages through the rooms of docs/architecture.md: the calls that have them as an argument."""

from __future__ import annotations

import sys
from itertools import groupby
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType

    from tasks.generate import GenerateTask

WORD = "quetzalcoatl"


def has_word(value: Any, depth: int = 0) -> bool:
    """Whether the message's text is somewhere in a value of plain data."""
    if isinstance(value, str):
        return WORD in value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return depth < 4 and any(has_word(part, depth + 1) for part in inner)


class Path:
    """Notes in which room each call with the word among its arguments is."""

    def __init__(self) -> None:
        self.rooms: list[str] = []

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        module = str(frame.f_globals.get("__name__"))
        if event == "call" and module.startswith("tasks."):
            names = frame.f_code.co_varnames[: frame.f_code.co_argcount + frame.f_code.co_kwonlyargcount + 2]
            if any(has_word(frame.f_locals.get(name)) for name in names):
                self.rooms.append(module.split(".")[1])


def test_a_producer_enters_each_room_once(generate: GenerateTask) -> None:
    """``delay`` has the messages checked and redacted, and then put: the broker asks the route, and no room is gone back to."""
    generate.delay(prompt="the connection", model="fake:1")
    path = Path()
    before = sys.getprofile()
    sys.setprofile(path)
    try:
        generate.delay(messages=[{"role": "user", "content": WORD}], model="fake:1")
    finally:
        sys.setprofile(before)
    conducted = [room for room in path.rooms if room not in ("generate", "messages")]  # the conductor, and a leaf
    assert [room for room, _ in groupby(conducted)] == ["client", "broker", "models", "broker"]
