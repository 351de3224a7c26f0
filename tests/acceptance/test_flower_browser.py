"""Flower as a person sees it, in a real browser. ``SCREENSHOTS=docs/images`` keeps the pictures for the documentation."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from celery.exceptions import TaskRevokedError

from tasks import generate
from tasks.errors import ContextExceeded
from tasks.messages.registry import WorkerRecord, decode_record
from tasks.server import keys
from tests.acceptance.browser import Browser, find_chromium
from tests.processes import running
from tests.support import ROOT, lasting_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis
    from celery import Celery

    from tasks.client.result import GenerateResult

CHROMIUM = find_chromium()
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not here: apt install chromium"),
    pytest.mark.skipif(bool(os.environ.get("CI")), reason="no browser in CI"),
]

NODE = "studio@lab"
CELERY = [sys.executable, "-m", "celery", "-A", "tasks"]
SECRET = "a-prompt-that-nobody-may-see"
LOGIN = "admin:fl0wer"


@pytest.fixture
def flower(redis_url: str, tmp_path: Path) -> Iterator[str]:
    """Flower and a worker that sends events; the address of Flower."""
    port = lasting_port()
    simulated = {"CELERY_MLX_CHIP": "Apple M3 Max", "CELERY_MLX_GPU_CORES": "40", "CELERY_MLX_MEMORY_GB": "64"}
    with ExitStack() as stack:
        # In this checkout's folder, where Flower finds its settings.
        started = stack.enter_context(
            running(
                [*CELERY, "flower", f"--port={port}"], tmp_path / "flower.log", {"FLOWER_BASIC_AUTH": LOGIN}, cwd=ROOT
            )
        )
        wait_until(lambda: started.alive() and "Visit me at" in started.log(), timeout_s=100, about="Flower")
        worker = [*CELERY, "worker", "-n", NODE, "-E", "-l", "INFO"]
        stack.enter_context(running(worker, tmp_path / "worker.log", simulated))
        yield f"127.0.0.1:{port}"


@pytest.fixture
def browser() -> Iterator[Browser]:
    """A browser."""
    assert CHROMIUM is not None
    with Browser(CHROMIUM) as started:
        yield started


def record(client: redis.Redis) -> WorkerRecord | None:
    """What the worker says of itself in the registry."""
    payload = client.hget(keys.WORKERS, NODE)
    found = decode_record(NODE, payload) if isinstance(payload, str) else None
    return found if isinstance(found, WorkerRecord) else None


def busy(client: redis.Redis) -> int:
    """How many slots of the worker are taken."""
    found = record(client)
    return -1 if found is None else sum(found.busy.values())


def send_requests() -> tuple[GenerateResult, GenerateResult]:
    """Send three requests: the first has succeeded. Returns one that has failed, and one that runs."""
    assert generate.delay(prompt=SECRET, model="fake:1", max_tokens=40).get(timeout=60)
    failed = generate.delay(prompt=SECRET, model="fake:1", max_tokens=9_000)
    with pytest.raises(ContextExceeded):
        failed.get(timeout=60)
    messages = [{"role": "system", "content": SECRET}, {"role": "user", "content": SECRET}]
    unfinished = generate.delay(messages=messages, model="fake:50", max_tokens=4_000)
    next(iter(unfinished.stream(timeout=60)))
    return failed, unfinished


def test_flower_in_a_browser(
    flower: str, browser: Browser, producer_app: Celery, redis_client: redis.Redis, tmp_path: Path
) -> None:
    """The worker, its queues and its tasks are there, prompts are not, and Terminate ends a generation at once."""
    wait_until(lambda: (found := record(redis_client)) is not None and found.status == "online", timeout_s=60)
    pictures = Path(os.environ.get("SCREENSHOTS") or tmp_path)
    failed, unfinished = send_requests()
    wait_until(lambda: busy(redis_client) == 1, about="one slot in use")

    browser.open(f"http://{LOGIN}@{flower}/workers")
    browser.wait(f"document.body.innerText.includes('{NODE}')")
    cells = "[...document.querySelectorAll('tbody tr td')].map(each => each.innerText)"
    browser.wait(f"{cells}.slice(-6).slice(0, 2).join() === 'Online,1'")
    browser.screenshot(pictures / "flower-workers.png")

    browser.open(f"http://{flower}/worker/{NODE}")
    browser.wait("document.body.innerText.includes('Pool')")
    browser.evaluate(
        "[...document.querySelectorAll('[data-bs-toggle=tab]')].find(e => /Queues/.test(e.innerText)).click()"
    )
    queues = browser.wait(
        "document.querySelector('.tab-pane.active') && document.querySelector('.tab-pane.active').innerText"
    )
    for queue in ("tier-under-3B", "tier-3-7B", "tier-30B-plus"):
        assert queue in queues

    browser.open(f"http://{flower}/tasks")
    browser.wait("['SUCCESS', 'FAILURE', 'STARTED'].every(each => document.body.innerText.includes(each))")
    browser.screenshot(pictures / "flower-tasks.png")
    assert SECRET not in browser.text()

    browser.open(f"http://{flower}/task/{failed.id}")
    assert "ContextExceeded" in browser.text()
    browser.open(f"http://{flower}/task/{unfinished.id}")
    text = browser.text()
    assert "fake:50" in text
    assert SECRET not in text
    assert f"messages=<2 messages, {2 * len(SECRET)} characters>" in text
    browser.screenshot(pictures / "flower-task.png")

    browser.evaluate("document.getElementById('task-terminate').click()")
    with pytest.raises(TaskRevokedError):
        unfinished.get(timeout=60)
    wait_until(lambda: busy(redis_client) == 0, about="the slot being free")
    assert [chunk.finish_reason for chunk in unfinished.stream(timeout=60)][-1] == "cancelled"
    browser.wait(f"fetch('/api/task/info/{unfinished.id}').then(r => r.json()).then(t => t.state === 'REVOKED')")
    browser.open(f"http://{flower}/task/{unfinished.id}")
    assert "REVOKED" in browser.text()
