"""Every command line in docker-compose.yml starts on this machine, with other addresses, ports and folders."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import redis

from tasks import generate
from tasks.demo.embedded import find_server
from tasks.gateway.records.access_key import AccessKey
from tasks.gateway.records.store import Store
from tasks.server import keys
from tests.processes import running
from tests.support import lasting_port, wait_until
from tests.unit.test_deploy import PROMETHEUS, compose

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from celery import Celery

    from tests.processes import Program

PASSWORDS = {"REDIS_PASSWORD": "r3disPassword", "FLOWER_PASSWORD": "fl0wer", "GRAFANA_PASSWORD": "gr4fana"}
CELERY = [sys.executable, "-m", "celery", "-A", "celery_mlx"]


class Stack:
    """The services of the file, as they would run in containers."""

    def __init__(self, folder: Path, stack: ExitStack, redis_url: str) -> None:
        self.services: dict[str, Any] = compose()["services"]
        self._folder = folder
        self._stack = stack
        self._changes = {
            "redis://:r3disPassword@redis:6379/0": redis_url,
            "0.0.0.0": "127.0.0.1",  # noqa: S104  (what containers listen at)
            "5555": str(lasting_port()),
            "8000": str(lasting_port()),
            "9808": str(lasting_port()),
            "9090": str(lasting_port()),
            "/tmp/": f"{folder}/",
            "/data": str(folder),
        }

    def port(self, of: str) -> int:
        """The port here that stands for one in the file."""
        return int(self._changes[of])

    def here(self, text: str, **changes: str) -> str:
        """A value of the file with its variables filled in, as it is on this machine."""
        text = re.sub(r"\$\{(\w+):-([^}]*)\}", lambda match: PASSWORDS.get(match[1], match[2]), text)
        text = re.sub(r"\$\{(\w+):\?[^}]*\}", lambda match: PASSWORDS[match[1]], text)
        for old, new in {**self._changes, **changes}.items():
            text = text.replace(old, new)
        return text

    def start(self, service: str, program: list[str], **changes: str) -> Program:
        """Start a service's command, with this program in front."""
        values = self.services[service]
        command = [*program, *(self.here(word, **changes) for word in values.get("command", []))]
        env = {name: self.here(value) for name, value in values.get("environment", {}).items()}
        return self._stack.enter_context(running(command, self._folder / f"{service}.log", env, cwd=self._folder))

    def healthy(self, service: str) -> bool:
        """Whether the service's own health check succeeds."""
        kind, _, *arguments = self.services[service]["healthcheck"]["test"]
        assert kind == "CMD"
        check = [sys.executable, *(self.here(argument) for argument in arguments)]
        return subprocess.run(check, capture_output=True, timeout=100, check=False).returncode == 0


@pytest.fixture
def stack(tmp_path: Path, redis_url: str) -> Iterator[Stack]:
    """Services of the file, beside the tests' own Redis."""
    with ExitStack() as exits:
        yield Stack(tmp_path, exits, redis_url)


def test_redis_has_a_password_and_keeps_what_it_is_told(stack: Stack, tmp_path: Path) -> None:
    """Its configuration is read: the password is asked for, everything is written to disk, nothing is evicted."""
    config = tmp_path / "valkey.conf"
    config.write_text(stack.here(compose()["configs"]["redis"]["content"]), encoding="utf-8")
    command = stack.services["redis"]["command"]
    assert command == ["valkey-server", stack.services["redis"]["configs"][0]["target"]]
    port = lasting_port()
    with running([str(find_server()), str(config), "--port", str(port)], tmp_path / "redis.log") as program:
        with closing(redis.Redis(port=port, password=PASSWORDS["REDIS_PASSWORD"], decode_responses=True)) as client:

            def answers() -> bool:
                program.alive()
                try:
                    return bool(client.ping())
                except redis.ConnectionError:
                    return False

            wait_until(answers, about="Redis")
            settings: Any = client.config_get("appendonly", "maxmemory-policy")
            assert settings == {"appendonly": "yes", "maxmemory-policy": "noeviction"}
        with closing(redis.Redis(port=port)) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()


def test_beat_sweeps(stack: Stack, redis_client: redis.Redis) -> None:
    """The sweep signs, so dead workers' requests are given to others."""
    program = stack.start("beat", CELERY)
    wait_until(lambda: program.alive() and redis_client.exists(keys.SWEEP), timeout_s=100, about="a sweep")
    assert program.end() == 0


def test_flower_asks_for_the_password(stack: Stack) -> None:
    """It is healthy, and shows nothing to who has none."""
    program = stack.start("flower", CELERY)
    wait_until(lambda: program.alive() and stack.healthy("flower"), timeout_s=100, about="Flower")
    with pytest.raises(HTTPError, match="401") as refused:
        urlopen(f"http://127.0.0.1:{stack.port('5555')}/workers", timeout=60)
    refused.value.close()


def test_metrics_are_served(stack: Stack) -> None:
    """At the port that Prometheus is told of."""
    program = stack.start("metrics", CELERY)
    wait_until(lambda: program.alive() and stack.healthy("metrics"), timeout_s=100, about="the metrics")
    with urlopen(f"http://127.0.0.1:{stack.port('9808')}/metrics", timeout=60) as answer:
        assert b"celery_mlx_redis_up 1" in answer.read()
    assert "metrics:9808" in (PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8")


def test_the_gateway_starts_once_there_is_a_key(stack: Stack, redis_client: redis.Redis) -> None:
    """Without one it ends with a line that says how to make it; then it is healthy."""
    outside = {"127.0.0.1": "0.0.0.0"}  # noqa: S104  (as in its container)
    refused = stack.start("gateway", CELERY, **outside)
    assert refused.process.wait(100) == 1
    assert "keys make" in refused.log()
    Store(redis_client).add_key("cmlx-secret", AccessKey(id="somebody", name="somebody"))
    program = stack.start("gateway", CELERY, **outside)
    wait_until(lambda: program.alive() and stack.healthy("gateway"), timeout_s=100, about="the gateway")


def test_the_worker_answers_with_the_model_that_was_fetched(
    stack: Stack, producer_app: Celery, bundled_model: Path, redis_client: redis.Redis
) -> None:
    """The model's service ends well, and after it the worker serves."""
    entrypoint = stack.services["model"]["entrypoint"]
    assert entrypoint[0] == "python"
    model = stack.start("model", [sys.executable, *entrypoint[1:]])
    assert model.process.wait(100) == 0, model.log()
    worker = stack.start("worker", CELERY)
    wait_until(lambda: worker.alive() and redis_client.hkeys(keys.WORKERS), timeout_s=100, about="the worker")
    answer = generate.delay(prompt="Once", max_tokens=2, temperature=0).get(timeout=100)
    assert answer["usage"]["completion_tokens"] == 2
    assert worker.end() == 0


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="Prometheus is not here: apt install prometheus")
def test_prometheus_takes_its_options(stack: Stack) -> None:
    """With the configuration and the rules of this checkout."""
    address = f"--web.listen-address=127.0.0.1:{stack.port('9090')}"
    program = stack.start("prometheus", ["prometheus", address], **{"/etc/prometheus": str(PROMETHEUS)})
    wait_until(
        lambda: program.alive() and "Server is ready to receive web requests" in program.log(),
        timeout_s=100,
        about="Prometheus",
    )
