"""The large files of a hub model: each is received into a part file, which a later process continues, and hashed at its end.

The hub's client (huggingface_hub) discards the part of an interrupted process, and checks sizes only.
"""

from __future__ import annotations

import hashlib
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from tasks.errors import ModelLoadFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: Is told the fraction that is done, ``None`` where it is not known, and the current action.
Report: TypeAlias = "Callable[[float | None, str], None]"

HUB_TIMEOUT_S = 15.0
#: A connection that brings nothing this often in a row is given up.
TRIES = 5
TRY_AGAIN_S = 1.0
BLOCK_BYTES = 64 << 10
HASH_BLOCK_BYTES = 8 << 20
PARTIAL_CONTENT = 206
LOOK_S = 0.25


@dataclass(slots=True, frozen=True)
class Blob:
    """One large file of a repository: its name, its size, its hash, and where it lies when it is here, whole or in part."""

    name: str
    size_bytes: int
    sha256: str
    path: Path

    @property
    def part(self) -> Path:
        """The file of the bytes that have come so far; the client's own temporary files have other names."""
        return self.path.with_name(f".celery-mlx-{self.path.name}.part")

    @property
    def here_bytes(self) -> int:
        """The number of its bytes that have come."""
        for path in (self.path, self.part):
            try:
                return path.stat().st_size
            except OSError:  # it is the other one, was just moved, or has not begun
                continue
        return 0


@dataclass(slots=True, frozen=True)
class Plan:
    """The files of a model at one commit. ``rest_bytes`` are its small files."""

    commit: str
    blobs: tuple[Blob, ...]
    rest_bytes: int

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.rest_bytes + sum(blob.size_bytes for blob in self.blobs)

    @property
    def here_bytes(self) -> int:
        """The number of bytes of the large files that have come."""
        return sum(blob.here_bytes for blob in self.blobs)


class Progress:
    """The progress of a download. Any thread may call its methods."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._lock = threading.Lock()
        self._hashed_bytes = 0
        # Of the files that the hub's client fetches itself.
        self._received_bytes = 0
        self._written_bytes = 0

    def hashed(self, count: int) -> None:
        """Count bytes that were hashed."""
        with self._lock:
            self._hashed_bytes += count

    def received(self, count: int) -> None:
        """Count bytes that the hub's client has received."""
        with self._lock:
            self._received_bytes += count

    def written(self, count: int) -> None:
        """Count bytes that the hub's client has written to the disk."""
        with self._lock:
            self._written_bytes += count

    def now(self) -> tuple[float, str]:
        """The fraction that is done, and a text. One of them changes whenever a byte is received, written or hashed."""
        with self._lock:
            hashed, by_client = self._hashed_bytes, max(self._received_bytes, self._written_bytes)
        total = max(1, self._plan.total_bytes)
        here = self._plan.here_bytes + by_client
        checked = f", {hashed / 1e6:.0f} MB checked" if hashed else ""
        return min(1.0, here / total), f"{min(here, total) / 1e9:.2f} of {total / 1e9:.2f} GB{checked}"

    @contextmanager
    def reported(self, report: Report) -> Iterator[None]:
        """Report the progress every :data:`LOOK_S` until the block ends."""
        done = threading.Event()

        def look() -> None:
            while not done.wait(LOOK_S):
                report(*self.now())

        thread = threading.Thread(target=look, name="download-progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def fetch_blob(source: str, commit: str, blob: Blob, progress: Progress) -> None:
    """Receive the missing rest of a large file, check its hash, and move it to its place.

    Raises:
        ModelLoadFailed: the hub sends nothing, or the file's hash is wrong.
    """
    from huggingface_hub import hf_hub_url

    if blob.path.exists():
        return
    blob.path.parent.mkdir(parents=True, exist_ok=True)
    url = hf_hub_url(source, blob.name, revision=commit)
    tries = TRIES
    while (had := blob.here_bytes) < blob.size_bytes:
        try:
            _receive(url, blob)
        except Exception as error:
            if not is_away(error) or isinstance(error, OSError) or tries == 1:
                raise
            time.sleep(TRY_AGAIN_S)
        tries = TRIES if blob.here_bytes > had else tries - 1
        if not tries:
            raise ModelLoadFailed(f"model {source}: the hub sends nothing of {blob.name}; try again later")
    if (found := sha256(blob.part, progress.hashed)) != blob.sha256:
        blob.part.unlink()
        raise ModelLoadFailed(
            f"model {source}: {blob.name} came with the hash {found[:12]}… where the hub says {blob.sha256[:12]}…; it was "
            "removed. Try again; if it stays so, a proxy in between or the repository is broken"
        )
    blob.part.replace(blob.path)


def _receive(url: str, blob: Blob) -> None:
    """Append bytes to the part that is here as they come. The client gathers 10 MB before it writes, and would lose them."""
    from huggingface_hub import get_session
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]  # in its manual

    # Without buffer, so that what has come is what is seen.
    with blob.part.open("ab", buffering=0) as file:
        start = file.tell()
        headers = {**build_hf_headers(), "Range": f"bytes={start}-"}
        session = get_session()
        with session.stream("GET", url, headers=headers, follow_redirects=True, timeout=HUB_TIMEOUT_S) as response:
            hf_raise_for_status(response)
            if start and response.status_code != PARTIAL_CONTENT:
                file.truncate(0)
            for block in response.iter_raw(BLOCK_BYTES):
                file.write(block)
    if blob.here_bytes > blob.size_bytes:
        blob.part.unlink()
        raise ModelLoadFailed(
            f"{url}: more came than the {blob.size_bytes} bytes that the hub's listing says; try again"
        )


def sha256(path: Path, told: Callable[[int], None]) -> str:
    """The SHA-256 of a file; ``told`` is called with the size of each block, because hashing a large file takes minutes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BLOCK_BYTES):
            digest.update(block)
            told(len(block))
    return digest.hexdigest()


def is_away(error: Exception) -> bool:
    """Whether the hub cannot be reached, as opposed to: it says no."""
    from huggingface_hub import errors

    if isinstance(error, errors.HfHubHTTPError):
        return error.response.status_code >= 500
    # Its HTTP library's errors have classes of several names, and are all not the hub's.
    return not isinstance(error, ModelLoadFailed | errors.HFValidationError)


def counting_bar(progress: Progress) -> Any:
    """A progress bar class for the hub's client; it displays nothing and counts the bytes that the client fetches itself."""
    from huggingface_hub import utils

    base: Any = utils.tqdm  # type: ignore[attr-defined]  # in its manual

    class Bar(base):
        def __init__(self, *args: Any, **options: Any) -> None:
            # One of the client's two byte bars counts received bytes, the other one written bytes. Other bars count files.
            received = str(options.get("name", "")).endswith(".transfer")
            self._count = (progress.received if received else progress.written) if options.get("unit") == "B" else None
            super().__init__(*args, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> Any:
            if self._count is not None:
                self._count(int(n or 0))
            return super().update(n)

    return Bar
