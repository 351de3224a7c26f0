"""A real Prometheus, with this checkout's configuration, rules and dashboard, on a fleet of one real worker."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from tasks import generate
from tests.processes import running
from tests.support import lasting_port, wait_until
from tests.unit.test_deploy import PROMETHEUS, alerts, queries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from celery import Celery

    from tests.conftest import StartWorker

    Ask = Callable[..., Any]

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="Prometheus is not here: apt install prometheus"
)

#: What one worker on one processor, which is well, has no series for.
SILENT = ("worker_gpu_ratio", "kv_cache_usage_ratio", "engine_restarts_total")


@pytest.fixture
def ask(redis_url: str, tmp_path: Path) -> Iterator[Ask]:
    """Prometheus and the exporter; asks Prometheus's API."""
    exporter, prometheus = lasting_port(), lasting_port()
    config = (PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8")
    assert "metrics:9808" in config
    config = config.replace("metrics:9808", f"127.0.0.1:{exporter}").replace("_interval: 15s", "_interval: 1s")
    (tmp_path / "prometheus.yml").write_text(config, encoding="utf-8")
    shutil.copy(PROMETHEUS / "alerts.yml", tmp_path)
    with ExitStack() as stack:
        serve = [sys.executable, "-m", "celery", "-A", "tasks", "metrics", "--port", str(exporter)]
        stack.enter_context(running(serve, tmp_path / "exporter.log"))
        command = [
            *("prometheus", f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"),
            f"--web.listen-address=127.0.0.1:{prometheus}",
        ]
        started = stack.enter_context(running(command, tmp_path / "prometheus.log"))
        wait_until(
            lambda: started.alive() and "Server is ready to receive web requests" in started.log(), about="Prometheus"
        )

        def ask(what: str, **parameters: str) -> Any:
            url = f"http://127.0.0.1:{prometheus}/api/v1/{what}?{urlencode(parameters)}"
            with urlopen(url, timeout=60) as answer:
                return json.load(answer)["data"]

        yield ask


def test_every_panel_has_data(ask: Ask, worker: StartWorker, producer_app: Celery) -> None:
    """Requests of a real worker show in each of the dashboard's queries, and the alerts are loaded."""
    worker(env={"CELERY_MLX_HEARTBEAT_S": "0.2"})
    for _ in range(3):
        generate.delay(prompt="x", model="fake:1", max_tokens=5).get(timeout=60)

    def empty() -> list[str]:
        return [query for query in queries() if not ask("query", query=query)["result"]]

    wanted = [query for query in queries() if not any(name in query for name in SILENT)]
    assert len(wanted) > 25
    wait_until(lambda: not set(empty()) & set(wanted), timeout_s=60, about=f"data for every panel but {empty()}")

    for _ in range(2):  # a counter that appears counts from then on
        generate.delay(prompt="x", model="fake:1", max_tokens=5).get(timeout=60)
    rate = "sum(increase(celery_mlx_generation_tokens_total[1m]))"
    wait_until(lambda: float(ask("query", query=rate)["result"][0]["value"][1]) > 0, about="tokens")
    rules = [rule for group in ask("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in rules} == {alert["alert"] for alert in alerts()}
    assert all(rule["health"] == "ok" for rule in rules), rules
    # Nobody sweeps here, which is an age without end.
    wait_until(
        lambda: [alert["labels"]["alertname"] for alert in ask("alerts")["alerts"]] == ["NoSweep"], about="an alert"
    )
