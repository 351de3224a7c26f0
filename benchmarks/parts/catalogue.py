"""A catalogue of models that lie in folders of this machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def write_catalogue(folder: Path, models: Mapping[str, Path]) -> Path:
    """A catalogue in this folder that has these models, all of the smallest tier; the file."""
    path = folder / "catalogue.toml"
    tables = (
        f'[[models]]\nname = {json.dumps(name)}\nsource = {json.dumps(str(source))}\ntier = "<3B"\n'
        for name, source in models.items()
    )
    path.write_text("".join(tables))
    return path
