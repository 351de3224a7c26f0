"""The batches in one folder."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from tasks.gateway.batches.batch import Batch
from tasks.gateway.batches.shelf import Shelf
from tasks.gateway.connection.refusal import Refusal
from tasks.messages.encoding import known_fields

if TYPE_CHECKING:
    from pathlib import Path

_ID = re.compile(r"batch_[0-9a-f]{32}")


class Batches:
    """Reads and writes their records. Its methods block, and raise OSError where the folder cannot be used.

    Args:
        folder: where they are.
        kept_s: how long a batch is known after it was made.
    """

    def __init__(self, folder: Path, kept_s: int) -> None:
        self._shelf = Shelf(folder)
        self._kept_s = kept_s
        self._over: set[str] = set()

    def write(self, batch: Batch) -> None:
        """Keep the current state of a batch."""
        self._shelf.write(batch.id, batch.values())

    def find(self, batch_id: str, owner: str) -> Batch:
        """A batch of this owner.

        Raises:
            Refusal: it has none of this id.
        """
        values = self._shelf.read(batch_id) if _ID.fullmatch(batch_id) else None
        if values is None or values["owner"] != owner:
            raise Refusal(404, f"there is no batch {batch_id!r:.80}, or no more", "not_found")
        return Batch(**known_fields(Batch, values))

    def owned(self, owner: str) -> list[Batch]:
        """All batches of this owner, the newest first."""
        found = [batch for batch in self._all(self._shelf.names()) if batch.owner == owner]
        return sorted(found, key=lambda batch: (-batch.created_at, batch.id))

    def unfinished(self) -> list[Batch]:
        """Those of all owners which somebody has to go on with, the oldest first."""
        found = self._all([name for name in self._shelf.names() if name not in self._over])
        self._over.update(batch.id for batch in found if batch.is_over)
        return sorted((batch for batch in found if not batch.is_over), key=lambda batch: batch.created_at)

    def user_of(self, file_id: str) -> Batch | None:
        """An unfinished batch that reads this file."""
        return next((batch for batch in self.unfinished() if batch.input_file_id == file_id), None)

    def cancel(self, batch: Batch) -> None:
        """Have the gateway that drives a batch end it."""
        self._mark(batch.id).touch()

    def cancelling_at(self, batch: Batch) -> int | None:
        """Return when somebody asked for a batch to be cancelled."""
        try:
            return int(self._mark(batch.id).stat().st_mtime)
        except FileNotFoundError:
            return None

    def lines(self, batch: Batch) -> Path:
        """Return the path of a batch's answers while it runs, in one file."""
        return self._shelf.folder / f"{batch.id}.lines"

    def forget_expired(self) -> None:
        """Forget batches that ended long ago."""
        for batch in self._all(self._shelf.names()):
            if batch.is_over:
                self.lines(batch).unlink(missing_ok=True)
            if batch.is_over and batch.created_at + self._kept_s <= time.time():
                self._shelf.remove(batch.id)
                self._mark(batch.id).unlink(missing_ok=True)
                self._over.discard(batch.id)
        self._shelf.clear()

    def _mark(self, batch_id: str) -> Path:
        return self._shelf.folder / f"{batch_id}.cancel"

    def _all(self, names: list[str]) -> list[Batch]:
        found = (self._shelf.read(name) for name in names)
        return [Batch(**known_fields(Batch, values)) for values in found if values is not None]
