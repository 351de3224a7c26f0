"""Which BLAS is taken, where there are several or none."""

from __future__ import annotations

import ctypes
import ctypes.util
import logging
import platform
import sys
from importlib import metadata
from typing import TYPE_CHECKING

import pytest

from tasks.engine.model import blas

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A Linux machine with MLX's CPU build; the paths that the test puts here can be found, those with 'bad' not loaded."""
    found: dict[str, str] = {}

    def load(path: str, mode: int) -> None:
        assert mode == ctypes.RTLD_GLOBAL
        if "bad" in path:
            raise OSError("wrong architecture")

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(blas, "installed", lambda name: name == "mlx-cpu" or name in found)
    monkeypatch.setattr(ctypes.util, "find_library", found.get)
    monkeypatch.setattr(blas, "find_mkl", lambda: found.get("mkl"))
    monkeypatch.setattr(ctypes, "CDLL", load)
    return found


@pytest.mark.parametrize(
    ("libraries", "expected"),
    [
        ({"openblas": "libopenblas.so.0", "mkl": "libmkl_rt.so.3"}, "OpenBLAS"),
        ({"mkl": "libmkl_rt.so.3"}, "MKL"),
        ({"openblas": "bad.so", "mkl": "libmkl_rt.so.3"}, "MKL"),
        ({"openblas": "bad.so"}, "reference"),
        ({}, "reference"),
    ],
)
def test_the_best_blas_that_loads(
    machine: dict[str, str], libraries: dict[str, str], expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    """OpenBLAS before MKL before the reference; one line says which, or what to install and what it gains."""
    caplog.set_level(logging.INFO)
    machine.update(libraries)
    assert blas.load_blas() == expected
    assert ("libopenblas0-pthread" in caplog.text) == (expected == "reference")
    assert sum("BLAS:" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize(("system", "distribution"), [("darwin", "mlx-cpu"), ("linux", "mlx-cuda-12")])
def test_where_mlx_has_its_own(monkeypatch: pytest.MonkeyPatch, system: str, distribution: str) -> None:
    """On macOS and with CUDA nothing is loaded."""
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(blas, "installed", lambda name: name == distribution)
    assert blas.load_blas() == ""


def test_the_wheels_library_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Under ``lib`` of the environment, where the wheel ``mkl`` puts it."""
    (tmp_path / "lib").mkdir()
    library = tmp_path / "lib" / "libmkl_rt.so.3"
    library.touch()
    monkeypatch.setattr(blas, "installed", lambda _: True)
    monkeypatch.setattr(metadata, "files", lambda _: None)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert blas.find_mkl() == str(library)
    library.unlink()
    assert blas.find_mkl() is None
    monkeypatch.setattr(blas, "installed", lambda _: False)
    assert blas.find_mkl() is None


def test_what_is_installed() -> None:
    """By the name of the distribution."""
    assert blas.installed("pytest")
    assert not blas.installed("no-such-distribution")
