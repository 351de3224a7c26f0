"""Machines whose clocks differ: what a producer says of a time is meant by Redis's clock, not by the worker's."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tasks.engine.fake import fake_text
from tasks.errors import Expired

if TYPE_CHECKING:
    from celery import Celery

    from tasks.generate import GenerateTask
    from tests.conftest import StartWorker

WAIT_S = 60.0
REQUEST: dict[str, Any] = {"prompt": "p", "model": "fake:1", "max_tokens": 3}


def test_a_worker_an_hour_ahead(generate: GenerateTask, producer_app: Celery, worker: StartWorker) -> None:
    """It meets deadlines, expirations and scheduled times as every other worker does."""
    worker("-c", "2", "-Q", "tier-under-3B", env={"CELERY_MLX_MODELS": "fake:1"}, app="tests.ahead")
    soon = datetime.now(UTC) + timedelta(seconds=120)
    for result in (
        generate.delay(**REQUEST, deadline=time.time() + 120),
        generate.apply_async(kwargs=REQUEST, expires=soon),
        generate.apply_async(kwargs=REQUEST, countdown=0.5),
    ):
        answer = result.get(timeout=WAIT_S)
        assert (answer["finish_reason"], answer["text"]) == ("length", fake_text("p", None, 3))
    assert generate.delay(**REQUEST, deadline=time.time() - 60).get(timeout=WAIT_S)["finish_reason"] == "deadline"
    gone = generate.apply_async(kwargs=REQUEST, expires=datetime.now(UTC) - timedelta(seconds=60))
    with pytest.raises(Expired):
        list(gone.stream(timeout=WAIT_S))
