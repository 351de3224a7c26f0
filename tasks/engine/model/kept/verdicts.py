"""Keeps the results of trials of a model, so that the next load of it on this machine need not try again.

A verdict is a function of the weights, of the code that computes with them, and of what it runs on. All of these are in
its key, so whatever changes one of them has the model tried out again.
"""

from __future__ import annotations

import hashlib
import os
import sys
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx

from tasks.engine.files.integrity import folder_revision
from tasks.engine.model.blas import blas_threads, describe_blas
from tasks.engine.model.kept.kept_file import KeptFile
from tasks.engine.model.kept.verdict_file import FILE, entry_of
from tasks.messages.encoding import to_json
from tasks.models.weights import weight_files
from tasks.names import PACKAGE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.engine.files.folder import ModelFolder

#: The number of verdicts that are kept, the latest ones; a model has two or three.
MOST = 256
#: The packages whose loaded modules are read as the code.
_PACKAGES = ("mlx_lm.models.", f"{PACKAGE}.engine.model.", f"{PACKAGE}.engine.sampling.")
_DISTRIBUTIONS = ("mlx", "mlx-lm")
#: Variables of the environment that change MLX's results.
_VARIABLES = ("MLX_", "OPENBLAS_", "MKL_")


class Verdicts:
    """The verdicts on one model, as it is loaded here.

    Args:
        folder: for caches; ``None`` has everything tried out.
        model: the model's files.
        blas: what MLX computes with.
        code: says which code computes.
    """

    def __init__(
        self, folder: Path | None, model: ModelFolder, blas: str, code: Callable[[], str] | None = None
    ) -> None:
        self._file = KeptFile(folder / FILE) if folder is not None else None
        self._model = model
        self._blas = blas
        self._code = code or running_code

    def find(self, about: object) -> dict[str, Any] | None:
        """The verdict on something about the model, which its ``repr`` describes; ``None`` where there is none."""
        if self._file is None:
            return None
        key = self._key(about)
        for entry in self._file.read():
            if entry.get("key") == key and isinstance(entry.get("verdict"), dict):
                return dict(entry["verdict"])
        return None

    def keep(self, about: object, verdict: dict[str, Any]) -> None:
        """Let later loads find this. Verdicts on folders that are gone make room."""
        if self._file is not None:
            key = self._key(about)
            others = [entry for entry in self._file.read() if entry.get("key") != key and _is_there(entry)]
            self._file.write([*others[1 - MOST :], entry_of(key, self._model.path, verdict)])

    def _key(self, about: object) -> str:
        return hashlib.blake2b(f"{self._subject}\0{about!r}".encode(), digest_size=16).hexdigest()

    @cached_property
    def _subject(self) -> str:
        """All that the verdicts follow from; asked for when the model's code has been imported."""
        device = mx.device_info(mx.default_device())
        return to_json(
            {
                "files": folder_revision(self._model.path),
                "weights": [(path.name, path.stat().st_mtime_ns) for path in weight_files(self._model.path)],
                "adapter": self._model.adapter.revision if self._model.adapter is not None else "",
                "code": self._code(),
                "device": [
                    str(mx.default_device()),
                    *(str(device.get(name)) for name in ("device_name", "architecture")),
                ],
                "blas": [describe_blas(self._blas), blas_threads(self._blas)] if self._blas else [],
                "environment": sorted(item for item in os.environ.items() if item[0].startswith(_VARIABLES)),
            }
        )


def _is_there(entry: dict[str, Any]) -> bool:
    return isinstance(entry.get("folder"), str) and Path(entry["folder"]).is_dir()


def running_code() -> str:
    """A digest of versions and of the loaded code: a checkout that is worked on keeps its version."""
    digest = hashlib.blake2b(" ".join(map(metadata.version, _DISTRIBUTIONS)).encode(), digest_size=16)
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name.startswith(_PACKAGES) and file:
            digest.update(f"{name}\0".encode())
            digest.update(hashlib.blake2b(Path(file).read_bytes()).digest())
    return digest.hexdigest()
