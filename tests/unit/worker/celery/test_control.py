"""Remote control: what the answers leave out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from celery.worker.control import Panel
from kombu import Connection

from tasks.worker.celery import control
from worker_config.celeryconfig import celery_options
from worker_config.settings import read_settings


def test_stats_have_no_password_of_a_sentinel() -> None:
    """What ``inspect stats`` and Flower show of the broker has neither Redis's password nor that of its Sentinels."""
    url = "sentinel://:s3cret@a:1,b:2/0?sentinel_password=s3cret"
    options = celery_options(read_settings({"REDIS_URL": url}))
    with Connection("memory://", transport_options=options["broker_transport_options"]) as connection:
        broker: dict[str, Any] = connection.info()
    assert "s3cret" in str(broker)
    consumer = SimpleNamespace(controller=SimpleNamespace(stats=lambda: {"broker": broker}))
    stats = Panel.data["stats"](SimpleNamespace(consumer=consumer))
    assert Panel.data["stats"] is control._stats_without_password
    assert stats["broker"]["transport_options"]["master_name"] == "mymaster"
    assert "s3cret" not in str(stats)
