"""The demo's worker: a real one, on the fake engine."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import psutil
import pytest

from tasks.demo.errors import SetupError
from tasks.demo.worker import DemoWorker
from tests.support import command_of, wait_until
from worker_config.cache import LAYOUT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import redis


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder for temporary files that has to be empty again after the test."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield
    assert list(folder.iterdir()) == []


def test_is_ready_with_its_model_and_beat_and_leaves_nothing(redis_url: str, redis_client: redis.Redis) -> None:
    """It is ready once its engine is, runs beat beside it, and takes all of them along when it stops."""
    with DemoWorker(redis_url, "fake:0") as worker:
        worker.wait_until_ready(redis_client)
        worker.check()
        family = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)]
        assert any("tasks.engine" in command_of(process) for process in family)
        wait_until(lambda: redis_client.exists("celery-mlx:sweep-lock"), about="beat's sweep")
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive


def test_a_model_that_cannot_be_loaded_is_named(
    redis_url: str, redis_client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed load, here of damaged weights, ends the waiting with the engine's reason."""
    monkeypatch.setenv("CELERY_MLX_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / f"models-{LAYOUT}" / "smollm2-135m"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"not weights at all")
    with (
        DemoWorker(redis_url, "smollm2-135m") as worker,
        pytest.raises(SetupError, match=r"^smollm2-135m cannot be loaded: .*smollm2-135m"),
    ):
        worker.wait_until_ready(redis_client)


def test_a_worker_that_ends_says_why(
    redis_url: str, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that refuses to start ends the waiting with its own last line."""
    monkeypatch.setenv("CELERY_MLX_HEARTBEAT_S", "soon")
    with (
        DemoWorker(redis_url, "fake:0") as worker,
        pytest.raises(SetupError, match=r"the worker ended: .*CELERY_MLX_HEARTBEAT_S='soon'"),
    ):
        worker.wait_until_ready(redis_client)


def test_a_worker_that_dies_is_noticed(redis_url: str, redis_client: redis.Redis) -> None:
    """After kill -9 of the worker the next check raises."""
    with DemoWorker(redis_url, "fake:0") as worker:
        worker.wait_until_ready(redis_client)
        os.kill(worker.pid, signal.SIGKILL)

        def noticed() -> bool:
            try:
                worker.check()
            except SetupError as error:
                return "the worker ended: " in str(error)
            return False

        wait_until(noticed, about="the worker's end")
