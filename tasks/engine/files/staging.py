"""A folder of which mlx-lm loads the model's own weights and no others.

mlx-lm loads every file that is called ``model*.safetensors``, whatever the index says, and none that is called otherwise. It
finds none in a folder whose path has a character that means something in a pattern, such as ``[``.
"""

from __future__ import annotations

import glob
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.models.weights import PATTERN, weight_files

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """The folder itself where its weights are all that mlx-lm would load; else one of links, for as long as it is needed."""
    weights = weight_files(folder)
    if set(weights) == set(folder.glob(PATTERN)) and glob.escape(str(folder)) == str(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="celery-mlx-") as temporary:
        links = Path(temporary)
        for path in folder.iterdir():
            if path.suffix != ".safetensors":
                (links / path.name).symlink_to(path.absolute())
        for number, path in enumerate(weights):
            (links / f"model-{number}.safetensors").symlink_to(path.absolute())
        yield links
