"""Single keys of a terminal, while a live view is shown."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType


class Keyboard:
    """Reads keys without waiting for a line; a context manager that gives the terminal back as it was.

    Where standard input is no terminal there are no keys.
    """

    def __init__(self) -> None:
        self._number = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._before: list[Any] | None = None

    def __enter__(self) -> Self:
        if self._number is not None:
            self._before = termios.tcgetattr(self._number)
            tty.setcbreak(self._number)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._number is not None and self._before is not None:
            termios.tcsetattr(self._number, termios.TCSADRAIN, self._before)

    def key(self, timeout_s: float) -> str:
        """The next key, in lower case; empty if none was typed in time."""
        if self._number is None:
            time.sleep(timeout_s)
            return ""
        if not select.select([self._number], [], [], timeout_s)[0]:
            return ""
        typed = os.read(self._number, 64).decode(errors="replace")
        return typed[:1].lower() if typed.isprintable() else ""
