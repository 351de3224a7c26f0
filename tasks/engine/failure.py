"""What an error of a library says, in one line for people."""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """The error's class and the first line of its text, which may be pages long."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
