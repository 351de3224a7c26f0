"""Reads a model's JSON files. The errors name the file, and say what it is instead."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

#: How a Git LFS pointer begins: a clone without LFS has it where the file should be.
LFS_POINTER = b"version https://git-lfs.github.com/spec/"


class ModelFilesUnreadable(ValueError):
    """A model's folder lacks a file, or a file has another content than its name says; the message names it."""


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in this file.

    Raises:
        ModelFilesUnreadable: it is missing, cannot be read, or holds something else.
    """
    require_file(path)
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise ModelFilesUnreadable(f"{path}: missing; is this a model's folder?") from None
    except OSError as error:
        raise ModelFilesUnreadable(f"{path}: cannot be read ({error.strerror})") from None
    return parse_object(text, str(path))


def require_file(path: Path) -> None:
    """Refuse a path that exists and is no file, such as a pipe, or the folder that Docker makes where a mounted file is missing.

    Raises:
        ModelFilesUnreadable: it is a folder, or something else.
    """
    if path.exists() and not path.is_file():
        raise ModelFilesUnreadable(
            f"{path}: is {'a folder' if path.is_dir() else 'no file'}; put the model's own there"
        )


def read_object_if_there(path: Path) -> dict[str, Any]:
    """The same, and an empty object where there is no such file."""
    return read_object(path) if path.is_file() else {}


def parse_object(text: bytes, where: str) -> dict[str, Any]:
    """Return the JSON object in this text; errors call it ``where``.

    Raises:
        ModelFilesUnreadable: it is something else.
    """
    if text.startswith(LFS_POINTER):
        raise ModelFilesUnreadable(pointer_message(where))
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFilesUnreadable(f"{where}: not valid JSON ({error}); fetch the file again") from None
    if not isinstance(value, dict):
        raise ModelFilesUnreadable(
            f"{where}: expected a JSON object, found {type(value).__name__}; fetch the file again"
        )
    return value


def pointer_message(where: str) -> str:
    """Explain a Git LFS pointer, and what to do."""
    return f"{where}: is a Git LFS pointer, not the file itself; run `git lfs pull` in its folder, or fetch it again"


def is_pointer(path: Path) -> bool:
    """Whether this file is a Git LFS pointer."""
    with path.open("rb") as file:
        return file.read(len(LFS_POINTER)) == LFS_POINTER


def whole(value: object) -> int | None:
    """A positive whole number, also one that is written as a float or as text; else ``None``."""
    number = number_of(value)
    return int(number) if number is not None and 0 < number < 2**63 else None


def number_of(value: object) -> int | float | None:
    """A number, also one that is written as text; else ``None``."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """The language model's part of a config; models that also see or hear keep it in ``text_config``."""
    nested = config.get("text_config")
    return {**config, **nested} if isinstance(nested, dict) else config
