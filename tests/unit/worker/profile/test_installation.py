"""What is known against the installed code that engines are started from."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from tasks.worker.profile import installation
from tasks.worker.profile.installation import Installation, installed_s

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A package of ours, of two modules."""
    folder = tmp_path / "own"
    (folder / "inner").mkdir(parents=True)
    for path in (folder / "one.py", folder / "inner" / "two.py"):
        path.write_text("")
        os.utime(path, ns=(1, 1))
    return folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that packages are installed into, with one of those that engines import."""
    folder = tmp_path / "site-packages"
    (folder / "thing" / "tests").mkdir(parents=True)
    files = ["thing/__init__.py", "thing/core.so", "thing/about.txt", "thing/tests/test_it.py"]
    for file in files:
        (folder / file).write_text("")
    about = folder / "thing-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
    (about / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(installation, "DISTRIBUTIONS", ("thing", "not-installed"))
    os.utime(folder, ns=(1, 1))
    return folder


def test_what_is_as_it_was(own: Path, place: Path) -> None:
    """Nothing is known against it, also where people have removed tests and texts to save room, before or since."""
    (place / "thing" / "tests" / "test_it.py").unlink()
    found = Installation((own,))
    (place / "thing" / "about.txt").unlink()
    (own / "inner" / "two.pyc").write_text("")
    assert found.fault() == ""
    for words in (
        "CRITICAL out of memory",
        "FileNotFoundError: [Errno 2] No such file or directory: '/models/config.json'",
    ):
        assert found.fault_of(words) == ""


def test_modules_of_ours(own: Path, place: Path) -> None:
    """A module that was written anew, removed or added is named."""
    module = own / "inner" / "two.py"
    for change in (module.touch, module.unlink, module.touch):
        found = Installation((own,), (place,))
        change()
        assert found.fault() == f"{module} was changed after its start"


@pytest.mark.parametrize("file", ["thing/__init__.py", "thing/core.so"])
def test_a_package_that_is_not_whole(own: Path, place: Path, file: str) -> None:
    """As where its removal was interrupted before the worker has started."""
    (place / file).unlink()
    assert Installation((own,)).fault() == f"thing lacks {file}, and has to be installed again"


def test_a_checkout(own: Path, place: Path) -> None:
    """Its list is that of its last build, and tells nothing."""
    (place / "thing" / "core.so").unlink()
    about = (place / "thing-1.0.dist-info").rename(place / "thing.egg-info")
    (about / "METADATA").rename(about / "PKG-INFO")
    (about / "RECORD").rename(about / "SOURCES.txt")
    (about / "SOURCES.txt").write_text("thing/core.so\n")
    assert Installation((own,)).fault() == ""


def test_a_package_that_comes_or_goes(own: Path, place: Path) -> None:
    """Any one: it may be what an engine could not import, and whole again by now."""
    found = Installation((own,), (place,))
    (place / "other").mkdir()
    assert found.fault() == f"{place} was changed after its start"


@pytest.mark.parametrize(
    "last_words",
    [
        "Traceback:\nModuleNotFoundError: No module named 'mlx_lm'",
        "ImportError: cannot import name 'Ready' from 'tasks.messages.load'",
        "/usr/bin/python3: No module named tasks.engine",
        f"engine 5 ended; its last words:\nFileNotFoundError: [Errno 2] No such file or directory: {sys.executable!r}",
    ],
)
def test_a_process_that_cannot_be_started(own: Path, place: Path, last_words: str) -> None:
    """Though all seems to be there: the line that says why is told."""
    said = Installation((own,), (place,)).fault_of(last_words)
    assert (
        said == f"the code of its engines is not whole ({last_words.splitlines()[-1]}), and has to be installed again"
    )


def test_when_something_was_installed(place: Path) -> None:
    """By the folder that packages are in."""
    (place / "another").mkdir()
    assert 0 <= installed_s() < 3600
