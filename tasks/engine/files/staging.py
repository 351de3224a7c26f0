"""Makes a folder from which libraries read the model as its authors mean it: its own weights alone, and JSON in UTF-8.

mlx-lm loads every file that is called ``model*.safetensors``, whatever the index says, and none that is called otherwise. It
finds none in a folder whose path has a character that means something in a pattern, such as ``[``. Neither it nor transformers
reads JSON that begins with a byte order mark, as editors of Windows write it.
"""

from __future__ import annotations

import glob
import json
import tempfile
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from tasks.errors import ModelLoadFailed
from tasks.models.weights import PATTERN, weight_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: The longest byte order mark, with what tells the encodings apart.
_BEGINNING_BYTES = 4


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """The folder itself where mlx-lm loads it rightly; else one of links and copies, for as long as it is needed."""
    weights = weight_files(folder)
    marked = _marked(folder)
    if set(weights) == set(folder.glob(PATTERN)) and glob.escape(str(folder)) == str(folder) and not marked:
        yield folder
        return
    with _copied(folder, marked) as links:
        for path in links.glob("*.safetensors"):
            path.unlink()
        for number, path in enumerate(weights):
            (links / f"model-{number}.safetensors").symlink_to(path.absolute())
        yield links


@contextmanager
def readable(folder: Path, instead: Mapping[Path, str] = MappingProxyType({})) -> Iterator[Path]:
    """The folder itself where all of its JSON is plain; else one of links and copies, for as long as it is needed.

    Args:
        folder: the model's.
        instead: texts of files that are to be read in the place of their own.

    Raises:
        ModelLoadFailed: one that was raised within, about the folder itself.
    """
    texts = {**_marked(folder), **instead}
    if not texts:
        yield folder
        return
    with _copied(folder, texts) as links:
        try:
            yield links
        except ModelLoadFailed as error:
            raise ModelLoadFailed(str(error).replace(str(links), str(folder))) from error


def _marked(folder: Path) -> dict[Path, str]:
    """The texts of JSON files that begin with a byte order mark, or have another encoding than UTF-8."""
    encodings = {path: _encoding(path) for path in folder.glob("*.json") if path.is_file()}
    return {path: path.read_text(encoding) for path, encoding in encodings.items() if encoding != "utf-8"}


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        return json.detect_encoding(file.read(_BEGINNING_BYTES))


@contextmanager
def _copied(folder: Path, texts: Mapping[Path, str]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="celery-mlx-") as temporary:
        links = Path(temporary)
        for path in folder.iterdir():
            if path in texts:
                (links / path.name).write_text(texts[path], encoding="utf-8")
            else:
                (links / path.name).symlink_to(path.absolute())
        yield links
