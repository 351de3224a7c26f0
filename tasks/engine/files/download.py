"""Fetches a model from the hub into the hub client's own cache; ``python -m tasks.engine.files.download`` does it as a process.

The client (huggingface_hub) downloads by whole files, throws away what an interrupted process has of one, and looks at sizes
alone. Weights are gigabytes, so here they come first, in parts that a later process goes on with, and are hashed before they
get their place; then the client fetches the rest and builds its folders around what it finds.

The process writes one JSON object a line: ``{"fraction": 0.25, "about": "…"}`` while it works, then ``{"folder": "…"}`` or
``{"error": "…"}``. It ends with its parent, when its standard input does.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import hashlib
import os
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from tasks.errors import ModelLoadFailed
from tasks.messages.encoding import to_json
from worker_config.hub import complete_mark, fetched_snapshot, hub_cache, repository_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

#: Is told the fraction that is done, ``None`` where it is not known, and what is being done.
Report: TypeAlias = "Callable[[float | None, str], None]"

#: What mlx-lm loads (``mlx_lm.utils.DEFAULT_ALLOW_PATTERNS``, which cannot be read without loading MLX).
PATTERNS = (
    *("*.json", "model*.safetensors", "*.py", "tokenizer.model", "*.tiktoken", "tiktoken.model", "*.txt", "*.jsonl"),
    "*.jinja",
)
#: What a download leaves free on the disk.
LEAST_FREE_BYTES = 256 << 20
#: The client takes larger files through hf_xet alone.
HTTP_MOST_BYTES = 50_000_000_000
HUB_TIMEOUT_S = 15.0
WORKERS = 4
#: A connection that brings nothing so often in a row is given up.
TRIES = 5
TRY_AGAIN_S = 1.0
BLOCK_BYTES = 64 << 10
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
        """What has come of it so far; the client's own temporary files have other names."""
        return self.path.with_name(f".celery-mlx-{self.path.name}.part")

    @property
    def here_bytes(self) -> int:
        """How much of it has come."""
        for path in (self.path, self.part):
            try:
                return path.stat().st_size
            except OSError:  # it is the other one, was just moved, or has not begun
                continue
        return 0


@dataclass(slots=True, frozen=True)
class Plan:
    """What a model at one commit consists of. ``rest_bytes`` are its small files."""

    commit: str
    blobs: tuple[Blob, ...]
    rest_bytes: int

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.rest_bytes + sum(blob.size_bytes for blob in self.blobs)

    @property
    def here_bytes(self) -> int:
        """What of the large files has come."""
        return sum(blob.here_bytes for blob in self.blobs)


def fetch(
    source: str, revision: str | None, report: Report = lambda _fraction, _about: None, *, refresh: bool = False
) -> Path:
    """The local folder of a hub model, complete. One process at a time fetches a model; others wait for it here.

    Args:
        source: the hub id.
        revision: a branch, tag or commit; ``None`` is what was fetched last, or the newest.
        report: is told how far it is.
        refresh: whether to ask the hub for news, although all of the model is here.

    Raises:
        ModelLoadFailed: it cannot be had; the message says why, and what to do.
    """
    from huggingface_hub import constants

    at = f"{source}@{revision}" if revision else source
    try:
        if constants.HF_HUB_OFFLINE:
            return _with_client(source, revision, local=True)
        with _lock(source, report):
            here = None if refresh else fetched_snapshot(source, revision)
            return here or _fetch(source, revision, report)
    except ModelLoadFailed:
        raise
    except Exception as error:  # the client lets errors of its HTTP library through, whichever it has
        raise ModelLoadFailed(f"model {at} {_problem(error)}") from error


def _fetch(source: str, revision: str | None, report: Report) -> Path:
    report(None, f"asking the hub for {source}")
    try:
        plan = _plan(source, revision)
    except Exception as error:
        if not _is_away(error):
            raise
        try:
            return _with_client(source, revision, local=True)
        except Exception:  # noqa: BLE001 -- that nothing is here is no news; why the hub is away is
            raise error from None
    _check_space(source, plan)
    with _watched(plan, report):
        with ThreadPoolExecutor(WORKERS, "blob") as pool:
            list(pool.map(lambda blob: _fetch_blob(source, plan.commit, blob), plan.blobs))
        folder = _with_client(source, revision, local=False)
    complete_mark(folder).touch()
    return folder


def _with_client(source: str, revision: str | None, *, local: bool) -> Path:
    """The client's own folder of a model; ``local`` makes it out of what is here."""
    from huggingface_hub import snapshot_download

    patterns = list(PATTERNS)
    return Path(snapshot_download(source, revision=revision, allow_patterns=patterns, local_files_only=local))


def _plan(source: str, revision: str | None) -> Plan:
    from huggingface_hub import HfApi

    info = HfApi().model_info(source, revision=revision, files_metadata=True, timeout=HUB_TIMEOUT_S)
    wanted = [each for each in info.siblings or [] if any(fnmatchcase(each.rfilename, pattern) for pattern in PATTERNS)]
    if not wanted:
        raise ModelLoadFailed(f"model {source} has no files that mlx-lm could load: name another repository")
    folder = repository_folder(source) / "blobs"
    blobs = tuple(
        Blob(each.rfilename, each.lfs.size, each.lfs.sha256, folder / each.lfs.sha256)
        for each in wanted
        if each.lfs is not None and each.lfs.size <= HTTP_MOST_BYTES
    )
    names = {blob.name for blob in blobs}
    return Plan(str(info.sha), blobs, sum(each.size or 0 for each in wanted if each.rfilename not in names))


def _check_space(source: str, plan: Plan) -> None:
    folder = repository_folder(source)
    free, needed = shutil.disk_usage(folder).free, plan.total_bytes - plan.here_bytes
    if needed + LEAST_FREE_BYTES > free:
        raise ModelLoadFailed(
            f"model {source} needs {needed / 1e9:.2f} GB more on the disk, and {hub_cache()} has {free / 1e9:.2f} GB free: "
            "make room, or set HF_HOME to a larger disk"
        )


def _fetch_blob(source: str, commit: str, blob: Blob) -> None:
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
            if not _is_away(error) or isinstance(error, OSError) or tries == 1:
                raise
            time.sleep(TRY_AGAIN_S)
        tries = TRIES if blob.here_bytes > had else tries - 1
        if not tries:
            raise ModelLoadFailed(f"model {source}: the hub sends nothing of {blob.name}; try again later")
    if (found := _sha256(blob.part)) != blob.sha256:
        blob.part.unlink()
        raise ModelLoadFailed(
            f"model {source}: {blob.name} came with the hash {found[:12]}… where the hub says {blob.sha256[:12]}…; it was "
            "removed. Try again; if it stays so, a proxy in between or the repository is broken"
        )
    blob.part.replace(blob.path)


def _receive(url: str, blob: Blob) -> None:
    """Append what comes to what is here. The client's own way gathers 10 MB before it writes, and loses them."""
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


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _lock(source: str, report: Report) -> Iterator[None]:
    """Hold the model's lock among this machine's processes; the system takes it away from one that dies."""
    folder = repository_folder(source)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".celery-mlx.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(None, f"waiting for another process that fetches {source}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _watched(plan: Plan, report: Report) -> Iterator[None]:
    """Tell how much has come, by what lies on the disk, until this is left."""
    done = threading.Event()
    total = max(1, plan.total_bytes)

    def look() -> None:
        while not done.wait(LOOK_S):
            here = plan.here_bytes
            report(min(1.0, here / total), f"{here / 1e9:.2f} of {total / 1e9:.2f} GB")

    thread = threading.Thread(target=look, name="download-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _is_away(error: Exception) -> bool:
    """Whether the hub cannot be reached, as opposed to: it says no."""
    from huggingface_hub import errors

    if isinstance(error, errors.HfHubHTTPError):
        return error.response.status_code >= 500
    # Its HTTP library's errors have classes of several names, and are all not the hub's.
    return not isinstance(error, ModelLoadFailed | errors.HFValidationError)


def _problem(error: Exception) -> str:
    """What went wrong, as the end of a sentence, and what to do."""
    from huggingface_hub import errors

    match error:
        case errors.GatedRepoError():
            return "needs its owner's permission: accept its terms on the hub and set HF_TOKEN"
        case errors.HfHubHTTPError() if error.response.status_code in (401, 403):
            return (
                f"is refused by the hub (HTTP {error.response.status_code}): check the name, and set HF_TOKEN to a token that "
                "may read it"
            )
        case errors.RevisionNotFoundError():
            return "has no such revision: check it, or leave it out"
        case errors.RepositoryNotFoundError():
            return "is unknown to the hub: check the name"
        case errors.HFValidationError():
            return "is not a hub id: expected owner/name, or an existing folder"
        case errors.LocalEntryNotFoundError() | errors.OfflineModeIsEnabled():
            return (
                "is not on this machine, and the hub may not be asked (HF_HUB_OFFLINE): fetch it beforehand with `celery -A "
                "tasks models pull`, or name a local folder"
            )
        case errors.HfHubHTTPError():
            return f"could not be fetched (HTTP {error.response.status_code}): try again, or name a local folder"
        case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return (
                f"could not be fetched: {error.strerror}: make room in {hub_cache()}, or set HF_HOME to a larger disk"
            )
    first = (str(error).strip().splitlines() or [""])[0][:200]
    return (
        f"could not be fetched ({type(error).__name__}: {first}): the hub cannot be reached, or breaks off; what has come is "
        "kept, try again"
    )


class Speaker:
    """The process's side of its protocol: lines of JSON, and an end when nothing has come for too long.

    Args:
        about: what is being fetched, for messages.
        timeout_s: the longest that it may take in all.
        stall_s: the longest without anything coming.
    """

    def __init__(self, about: str, timeout_s: float, stall_s: float) -> None:
        self._about = about
        self._timeout_s = timeout_s
        self._stall_s = stall_s
        self._started = self._moved = time.monotonic()
        self._last: tuple[float | None, str] = (None, "")
        self._lock = threading.Lock()

    def report(self, fraction: float | None, about: str) -> None:
        """See :data:`Report`."""
        with self._lock:
            if (fraction, about) != self._last:
                self._last, self._moved = (fraction, about), time.monotonic()
                self._say(fraction=fraction, about=about)

    def end(self, **values: Any) -> None:
        """Say how it ended, and end the process: threads of the client may hang."""
        with self._lock:
            self._say(**values)
            os._exit(1 if "error" in values else 0)

    def watch(self) -> None:
        """End the process when its time is over, or its parent has gone. On a thread of its own."""
        threading.Thread(target=self._watch_parent, name="parent", daemon=True).start()
        while True:
            time.sleep(LOOK_S)
            now = time.monotonic()
            if now - self._started > self._timeout_s:
                self.end(error=f"{self._about} was not fetched within {self._timeout_s:g} s{KEPT} (download_timeout_s)")
            if now - self._moved > self._stall_s and not self._last[1].startswith("waiting"):
                self.end(
                    error=f"nothing of {self._about} came from the hub for {self._stall_s:g} s{KEPT} (download_stall_s)"
                )

    @staticmethod
    def _watch_parent() -> None:
        while sys.stdin.buffer.read(1):
            continue
        os._exit(1)

    @staticmethod
    def _say(**values: Any) -> None:
        try:
            sys.stdout.write(to_json(values) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            os._exit(1)


KEPT = ": what has come is kept, try again"


def main(arguments: Sequence[str] | None = None) -> None:
    """Fetch what the command line names, and end the process."""
    parser = argparse.ArgumentParser(prog="python -m tasks.engine.files.download", description=__doc__)
    parser.add_argument("model", help="a hub id, as owner/name")
    parser.add_argument("--revision", help="a branch, tag or commit")
    parser.add_argument("--refresh", action="store_true", help="ask the hub, even if the model is here")
    parser.add_argument("--timeout-s", type=float, default=86_400.0)
    parser.add_argument("--stall-s", type=float, default=120.0)
    options = parser.parse_args(arguments)
    speaker = Speaker(f"model {options.model}", options.timeout_s, options.stall_s)
    threading.Thread(target=speaker.watch, name="watch", daemon=True).start()
    try:
        folder = fetch(options.model, options.revision, speaker.report, refresh=options.refresh)
    except ModelLoadFailed as error:
        speaker.end(error=str(error))
    else:
        speaker.end(folder=str(folder))


if __name__ == "__main__":
    main()
