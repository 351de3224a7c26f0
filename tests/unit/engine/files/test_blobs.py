"""The large files of a hub model: what is told while they are checked."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from tasks.engine.files.blobs import HASH_BLOCK_BYTES, Plan, Progress, sha256

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_is_hashed_in_steps(tmp_path: Path) -> None:
    """Each block of a large file is told, so a download whose files are being hashed changes its report and has not stalled."""
    path = tmp_path / "weights"
    path.write_bytes(bytes(2 * HASH_BLOCK_BYTES) + b"end")
    progress = Progress(Plan("commit", (), 0))
    told: list[int] = []
    reports: list[tuple[float, str]] = []

    def hear(count: int) -> None:
        told.append(count)
        progress.hashed(count)
        reports.append(progress.now())

    assert sha256(path, hear) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert told == [HASH_BLOCK_BYTES, HASH_BLOCK_BYTES, 3]
    assert len(set(reports[:2])) == 2


def test_what_the_client_fetches_counts() -> None:
    """Of what the client receives and what it writes the larger number counts, and never more than there is."""
    progress = Progress(Plan("commit", (), 100))
    progress.received(60)
    progress.written(50)
    assert progress.now()[0] == 0.6
    progress.written(70)
    assert progress.now()[0] == 1.0
