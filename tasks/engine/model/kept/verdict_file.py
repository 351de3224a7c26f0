"""The file of verdicts, and what others than an engine read of it: without MLX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.engine.model.kept.kept_file import KeptFile

if TYPE_CHECKING:
    from pathlib import Path

FILE = "verdicts-1.json"


def entry_of(key: str, folder: Path, verdict: dict[str, Any]) -> dict[str, Any]:
    """A verdict as the file has it: the key is for engines, the model's folder for people."""
    return {"key": key, "folder": str(folder.resolve()), "verdict": verdict}


def on_numpy(cache: Path, folder: Path) -> tuple[int, bool] | None:
    """Up to how many tokens of a step numpy computes, and whether prompts: by the latest trial of a model on this machine.

    ``None`` where no trial of it is known.
    """
    name = str(folder.resolve())
    for entry in reversed(KeptFile(cache / FILE).read()):
        verdict = entry.get("verdict")
        if entry.get("folder") == name and isinstance(verdict, dict) and isinstance(verdict.get("tokens"), int):
            return verdict["tokens"], verdict.get("prompts") is True
    return None
