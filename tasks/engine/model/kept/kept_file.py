"""A file of JSON objects in a folder for caches: lost without harm, and never a reason for a load to fail."""

from __future__ import annotations

import json
import logging
import os
from typing import TYPE_CHECKING, Any

from tasks.messages.encoding import to_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)


class KeptFile:
    """Damaged or missing, it is empty; where it cannot be written, nothing is kept."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[dict[str, Any]]:
        """The objects, the latest last."""
        try:
            found = json.loads(self._path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return []
        return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []

    def write(self, entries: Sequence[dict[str, Any]]) -> None:
        """Put these into the file, as a whole: nobody reads a half of it."""
        scratch = self._path.with_suffix(f".{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_text(to_json(list(entries), indent=1))
            scratch.replace(self._path)
        except OSError as error:
            logger.debug("%s cannot be written: %s", self._path, error)
