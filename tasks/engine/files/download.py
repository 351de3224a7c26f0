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
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.engine.files.blobs import HUB_TIMEOUT_S, Blob, Plan, Progress, counting_bar, fetch_blob, is_away
from tasks.engine.files.integrity import check_model
from tasks.engine.files.speaker import Speaker
from tasks.errors import ModelLoadFailed
from tasks.models.reading import ModelFilesUnreadable
from tasks.names import PACKAGE
from worker_config.hub import LEAST_FREE_BYTES, complete_mark, fetched_snapshot, hub_cache, repository_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tasks.engine.files.blobs import Report

#: What mlx-lm loads (``mlx_lm.utils.DEFAULT_ALLOW_PATTERNS``, which cannot be read without loading MLX).
PATTERNS = (
    *("*.json", "model*.safetensors", "*.py", "tokenizer.model", "*.tiktoken", "tiktoken.model", "*.txt", "*.jsonl"),
    "*.jinja",
    "*_Dense/model.safetensors",  # of an embedding model
)
#: The client takes larger files through hf_xet alone.
HTTP_MOST_BYTES = 50_000_000_000
WORKERS = 4
#: Errors of a cache that belongs to another user or is mounted read-only.
NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS)


def fetch(
    source: str,
    revision: str | None,
    report: Report = lambda _fraction, _about: None,
    *,
    refresh: bool = False,
    http_most_bytes: int = HTTP_MOST_BYTES,
) -> Path:
    """The local folder of a hub model, complete. One process at a time fetches a model; others wait for it here.

    Args:
        source: the hub id.
        revision: a branch, tag or commit; ``None`` stands for the commit that was fetched last, or the newest.
        report: is told how far it is.
        refresh: whether to ask the hub for news, although all of the model is here.
        http_most_bytes: larger files are left to the hub's client.

    Raises:
        ModelLoadFailed: it cannot be had; the message says why, and what to do.
    """
    from huggingface_hub import constants

    import_module("huggingface_hub.hf_api")  # before the first report: a busy machine takes seconds for it
    at = f"{source}@{revision}" if revision else source
    try:
        if constants.HF_HUB_OFFLINE:
            return _local(source, revision)
        try:
            folder = _own_folder(source)
        except OSError as error:
            if refresh or error.errno not in NOT_OURS:
                raise
            return _only_read(source, revision, error)
        with _lock(folder, source, report):
            here = None if refresh else fetched_snapshot(source, revision)
            return here or _fetch(source, revision, report, http_most_bytes)
    except ModelLoadFailed:
        raise
    except Exception as error:  # the client lets errors of its HTTP library through, whichever it has
        raise ModelLoadFailed(f"model {at} {_problem(error)}") from error


def _fetch(source: str, revision: str | None, report: Report, http_most_bytes: int) -> Path:
    report(None, f"asking the hub for {source}")
    try:
        plan = _plan(source, revision, http_most_bytes)
    except Exception as error:
        if not is_away(error):
            raise
        try:
            return fetched_snapshot(source, revision) or _local(source, revision)
        except Exception:  # noqa: BLE001 -- that nothing is here is no news; why the hub is away is
            raise error from None
    _check_space(source, plan)
    progress = Progress(plan)
    with progress.reported(report):
        with ThreadPoolExecutor(WORKERS, "blob") as pool:
            list(pool.map(lambda blob: fetch_blob(source, plan.commit, blob, progress), plan.blobs))
        folder = _from_client(source, revision, progress)
    complete_mark(folder).touch()
    return folder


def _from_client(source: str, revision: str | None, progress: Progress | None) -> Path:
    """The client's folder of a model. With ``progress`` the client fetches missing files; without it the client stays offline."""
    from huggingface_hub import snapshot_download

    bar = counting_bar(progress) if progress is not None else None
    patterns = list(PATTERNS)
    return Path(
        snapshot_download(
            source,
            revision=revision,
            cache_dir=hub_cache(),  # the client takes an empty HF_HOME, as compose files write it, for this folder
            allow_patterns=patterns,
            local_files_only=progress is None,
            tqdm_class=bar,
        )
    )


def _local(source: str, revision: str | None) -> Path:
    """The folder of a model that this program or another one has fetched; the hub is not asked.

    Raises:
        ModelFilesUnreadable: a file is missing. The client returns the folder even then.
    """
    folder = _from_client(source, revision, None)
    check_model(folder)
    return folder


def _only_read(source: str, revision: str | None, denied: OSError) -> Path:
    """The folder of a model in a cache that this process cannot write to.

    Raises:
        ModelLoadFailed: the model is missing or incomplete, and cannot be fetched.
    """
    try:
        return _local(source, revision)
    except Exception as error:
        missing = str(error) if isinstance(error, ModelFilesUnreadable) else f"model {source} is not on this machine"
        raise ModelLoadFailed(f"{missing}; and it cannot be fetched: {_denied(denied)}") from error


def _plan(source: str, revision: str | None, http_most_bytes: int) -> Plan:
    from huggingface_hub import HfApi

    info = HfApi().model_info(source, revision=revision, files_metadata=True, timeout=HUB_TIMEOUT_S)
    wanted = [file for file in info.siblings or [] if any(fnmatchcase(file.rfilename, pattern) for pattern in PATTERNS)]
    if not wanted:
        raise ModelLoadFailed(f"model {source} has no files that mlx-lm could load: name another repository")
    folder = repository_folder(source) / "blobs"
    blobs = tuple(
        Blob(file.rfilename, file.lfs.size, file.lfs.sha256, folder / file.lfs.sha256)
        for file in wanted
        if file.lfs is not None and file.lfs.size <= http_most_bytes
    )
    names = {blob.name for blob in blobs}
    return Plan(str(info.sha), blobs, sum(file.size or 0 for file in wanted if file.rfilename not in names))


def _check_space(source: str, plan: Plan) -> None:
    free, needed = shutil.disk_usage(repository_folder(source)).free, plan.total_bytes - plan.here_bytes
    if needed + LEAST_FREE_BYTES > free:
        raise ModelLoadFailed(
            f"model {source} needs {needed / 1e9:.2f} GB more on the disk, and {hub_cache()} has {free / 1e9:.2f} GB free: "
            "make room, or set HF_HOME to a larger disk"
        )


def _own_folder(source: str) -> Path:
    """The client's folder of a model, which is created if it is missing.

    Raises:
        OSError: this process cannot write there.
    """
    folder = repository_folder(source)
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
    return folder


@contextmanager
def _lock(folder: Path, source: str, report: Report) -> Iterator[None]:
    """Hold the model's lock among this machine's processes; the system takes it away from one that dies."""
    # Opened read-only because another user may own the file.
    lock = os.open(folder / ".celery-mlx.lock", os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(None, f"waiting for another process that fetches {source}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _problem(error: Exception) -> str:
    """Explain an error, as the end of a sentence, and what to do."""
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
                "is not on this machine, and the hub may not be asked (HF_HUB_OFFLINE): fetch it in advance with `celery -A "
                "tasks models pull`, or name a local folder"
            )
        case errors.HfHubHTTPError():
            return f"could not be fetched (HTTP {error.response.status_code}): try again, or name a local folder"
        case OSError() if error.errno in NOT_OURS:
            return f"could not be fetched: {_denied(error)}"
        case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return (
                f"could not be fetched: {error.strerror}: make room in {hub_cache()}, or set HF_HOME to a larger disk"
            )
    first = (str(error).strip().splitlines() or [""])[0][:200]
    return (
        f"could not be fetched ({type(error).__name__}: {first}): the hub cannot be reached, or breaks off; the fetched part "
        "is kept, try again"
    )


def _denied(error: OSError) -> str:
    return (
        f"{error.filename or hub_cache()}: {error.strerror}: let this user read and write the hub's cache, or set HF_HOME to a "
        "folder of its own"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Fetch the model that the command line names, and end the process."""
    parser = argparse.ArgumentParser(prog=f"python -m {PACKAGE}.engine.files.download", description=__doc__)
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
