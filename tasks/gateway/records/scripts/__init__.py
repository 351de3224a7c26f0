"""The scripts that gateways run in Redis."""

from __future__ import annotations

from importlib.resources import files


def source(name: str) -> str:
    """The text of one script."""
    return files(__name__).joinpath(f"{name}.lua").read_text(encoding="utf-8")
