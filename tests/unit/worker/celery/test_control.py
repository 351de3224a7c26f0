"""Remote control: what the answers leave out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from celery.worker import state as celery_state
from celery.worker.control import Panel
from kombu import Connection

from tasks.worker.celery import control
from worker_config.celeryconfig import celery_options
from worker_config.settings import read_settings


def test_what_is_active() -> None:
    """A request whose journal has ended is not listed, though Celery is yet to store its result; other tasks are."""

    class Known:
        def __init__(self, **values: Any) -> None:
            vars(self).update(values)

        def info(self, safe: bool) -> dict[str, Any]:
            return vars(self)

    known = [Known(id="runs", has_ended=False), Known(id="ended", has_ended=True), Known(id="another's")]
    celery_state.active_requests.update(known)
    try:
        listed = Panel.data["active"](SimpleNamespace(tset=set))
    finally:
        celery_state.active_requests.difference_update(known)
    assert {found["id"] for found in listed} == {"runs", "another's"}
    assert Panel.data["dump_active"] is Panel.data["active"]


def test_stats_have_no_password_of_a_sentinel() -> None:
    """What ``inspect stats`` and Flower show of the broker has neither Redis's password nor that of its Sentinels."""
    url = "sentinel://:s3cret@a:1,b:2/0?sentinel_password=s3cret"
    options = celery_options(read_settings({"REDIS_URL": url}))
    with Connection("memory://", transport_options=options["broker_transport_options"]) as connection:
        broker: dict[str, Any] = connection.info()
    assert "s3cret" in str(broker)
    consumer = SimpleNamespace(controller=SimpleNamespace(stats=lambda: {"broker": broker}))
    stats = Panel.data["stats"](SimpleNamespace(consumer=consumer))
    assert Panel.data["stats"] is control.stats_without_password
    assert stats["broker"]["transport_options"]["master_name"] == "mymaster"
    assert "s3cret" not in str(stats)
