"""Files of the gateway's clients: the bytes, and their owners."""

from __future__ import annotations

import re
import time
import uuid
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tasks.gateway.batches.shelf import Shelf, place
from tasks.gateway.connection.refusal import Refusal
from tasks.messages.encoding import known_fields

if TYPE_CHECKING:
    from pathlib import Path

BATCH, BATCH_OUTPUT = "batch", "batch_output"
_ID = re.compile(r"file-[0-9a-f]{32}")


@dataclass(slots=True, frozen=True, kw_only=True)
class StoredFile:
    """One file's record. ``owner`` is the id of an API key; times are Unix seconds."""

    id: str
    owner: str
    filename: str
    purpose: str
    bytes: int
    created_at: int
    expires_at: int

    def shown(self) -> dict[str, Any]:
        """OpenAI's file object."""
        shown = {name: value for name, value in asdict(self).items() if name != "owner"}
        return {"object": "file", **shown, "status": "processed", "status_details": None}


class Files:
    """The files in one folder. Its methods block.

    Args:
        folder: where they are.
        most_bytes: all of them together.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._shelf = Shelf(folder)
        self._most_bytes = most_bytes

    def part(self) -> Path:
        """Return the path to write a file to before it is added.

        Raises:
            OSError: the folder cannot be made.
        """
        return self._shelf.part(uuid.uuid4().hex)

    def add(
        self, part: Path, *, owner: str, filename: str, purpose: str, ttl_s: int, file_id: str | None = None
    ) -> StoredFile:
        """Take a file that was written; one with this id is replaced.

        Raises:
            Refusal: there is no room for it.
            OSError: the disk has none.
        """
        now, size = int(time.time()), part.stat().st_size
        if purpose == BATCH and size + sum(file.bytes for file in self._all()) > self._most_bytes:
            part.unlink()
            raise Refusal(
                413, "the gateway's files have no room for this one: delete files that you do not need", "files_full"
            )
        record = StoredFile(
            id=file_id or f"file-{uuid.uuid4().hex}",
            owner=owner,
            filename=filename,
            purpose=purpose,
            bytes=size,
            created_at=now,
            expires_at=now + ttl_s,
        )
        place(part, self.content(record.id))
        self._shelf.write(record.id, asdict(record))
        return record

    def content(self, file_id: str) -> Path:
        """Return the path of a file's bytes."""
        return self._shelf.folder / file_id

    def find(self, file_id: str, owner: str) -> StoredFile:
        """A file of this owner.

        Raises:
            Refusal: it has none of this id.
            OSError: the folder cannot be read.
        """
        values = self._shelf.read(file_id) if _ID.fullmatch(file_id) else None
        if values is None or values["owner"] != owner or values["expires_at"] <= time.time():
            raise Refusal(404, f"there is no file {file_id!r:.80}, or no more", "not_found")
        return StoredFile(**known_fields(StoredFile, values))

    def owned(self, owner: str) -> list[StoredFile]:
        """All files of this owner, the oldest first.

        Raises:
            OSError: the folder cannot be read.
        """
        now = time.time()
        found = [file for file in self._all() if file.owner == owner and file.expires_at > now]
        return sorted(found, key=lambda file: (file.created_at, file.id))

    def delete(self, file_id: str) -> None:
        """Delete a file.

        Raises:
            OSError: it cannot be deleted.
        """
        self._shelf.remove(file_id)
        self.content(file_id).unlink(missing_ok=True)

    def forget_expired(self) -> None:
        """Delete files that have expired.

        Raises:
            OSError: the folder cannot be read.
        """
        for file in self._all():
            if file.expires_at <= time.time():
                self.delete(file.id)
        self._shelf.clear()

    def _all(self) -> list[StoredFile]:
        found = (self._shelf.read(name) for name in self._shelf.names())
        return [StoredFile(**known_fields(StoredFile, values)) for values in found if values is not None]
