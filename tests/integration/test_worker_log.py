"""What real workers and beat write into their logs."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from celery.exceptions import TaskRevokedError

from tasks import generate
from tasks.errors import InvalidRequest
from tasks.messages.registry import WorkerRecord, decode_record
from tasks.server import keys
from tests.processes import running
from tests.support import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    import redis
    from celery import Celery

    from tests.conftest import StartWorker

SECRET = "a-prompt-that-nobody-may-see"


def requests(log: str) -> list[dict[str, Any]]:
    """The lines about requests, of a log in JSON."""
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return [line for line in lines if line["logger"] == "tasks.requests"]


def test_one_line_of_json_for_each_request(worker: StartWorker, producer_app: Celery) -> None:
    """With its id, model, attempt, counts and times; nothing for a token, nothing of the prompt or the answer."""
    started = worker(env={"CELERY_MLX_LOG_JSON": "1"})
    done = generate.delay(prompt=SECRET, model="fake:1", max_tokens=50)
    text = done.get(timeout=60)["text"]
    long = generate.delay(prompt=SECRET, model="fake:5", max_tokens=5000)
    next(iter(long.stream(timeout=60)))
    long.revoke(terminate=True)
    with pytest.raises(TaskRevokedError):
        long.get(timeout=60)
    wrong = producer_app.send_task("tasks.generate", kwargs={"prompt": [SECRET]}, queue="tier-under-3B")
    with pytest.raises(InvalidRequest):
        wrong.get(timeout=60)
    lines = {line["task_id"]: line for line in wait_until(lambda: _three(started.log()), about="three lines")}
    assert set(lines) == {done.id, long.id, wrong.id}
    first = lines[done.id]
    assert first["level"] == "INFO"
    assert (first["outcome"], first["model"], first["attempt"]) == ("succeeded", "fake:1", 1)
    assert (first["finish_reason"], first["completion_tokens"]) == ("length", 50)
    assert first["total_ms"] >= first["first_token_ms"] >= 0
    assert first["message"].startswith(f"request {done.id} succeeded: model=fake:1 attempt=1 ")
    assert lines[long.id]["outcome"] == "cancelled"
    assert (lines[wrong.id]["outcome"], lines[wrong.id]["code"]) == ("failed", "invalid_request")
    started.stop()
    log = started.log()
    messages = [json.loads(line)["message"] for line in log.splitlines() if line.startswith("{")]
    assert sum(done.id in message for message in messages) == 1
    assert SECRET not in log
    assert text.split()[0] not in log


def test_the_line_of_a_worker_that_is_ready(worker: StartWorker, redis_url: str) -> None:
    """It says what the worker serves, in words and in fields, and a command that it can answer; ``ask`` is that command."""
    fake = {"CELERY_MLX_MODELS": "fake:1", "CELERY_MLX_DEFAULT_MODEL": "fake:1"}
    started = worker("-Q", "tier-under-3B", env={"CELERY_MLX_LOG_JSON": "1", **fake})
    wait_until(lambda: "is ready: " in started.log())
    lines = [json.loads(line) for line in started.log().splitlines() if line.startswith("{")]
    (ready,) = [line for line in lines if "models_kept" in line]
    assert (ready["node"], ready["tiers"], ready["models_kept"]) == (started.node, ["<3B"], ["fake:1"])
    assert ready["slots"] >= 8
    assert not any(line["message"].endswith(" ready.") for line in lines)
    (example,) = re.findall(r"Send a request: celery -A tasks ask (.*)$", ready["message"])
    command = [sys.executable, "-m", "celery", "-A", "tasks", "ask", *shlex.split(example), "--max-tokens", "7"]
    environment = {**os.environ, **fake}
    asked = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert asked.stdout.strip()
    assert asked.stderr.strip().startswith("length: 7 tokens, the first after ")


def _three(log: str) -> list[dict[str, Any]]:
    found = requests(log)
    return found if len(found) == 3 else []


def test_text_has_the_same_line(worker: StartWorker, producer_app: Celery) -> None:
    """Without the setting people read it: one line for each request, instead of Celery's two."""
    started = worker()
    done = generate.delay(prompt=SECRET, model="fake:1", max_tokens=3)
    done.get(timeout=60)
    line = wait_until(lambda: [said for said in started.log().splitlines() if done.id in said], about="its line")
    assert len(line) == 1
    assert f"INFO] request {done.id} succeeded: model=fake:1 attempt=1 finish_reason=length" in line[0]
    assert "Task tasks.generate" not in started.log()


def test_debug_shows_no_prompt_either(worker: StartWorker, producer_app: Celery) -> None:
    """Celery's own lines are there then, and neither the prompt nor the answer in any."""
    started = worker("-l", "DEBUG")
    done = generate.delay(prompt=SECRET, model="fake:1", max_tokens=3)
    text = done.get(timeout=60)["text"]
    wait_until(lambda: f"Task tasks.generate[{done.id}] succeeded" in started.log(), about="Celery's line")
    assert f"Task tasks.generate[{done.id}] received" in started.log()
    assert SECRET not in started.log()
    assert text.split()[0] not in started.log()


def test_beat_writes_json_too(redis_client: redis.Redis, tmp_path: Path) -> None:
    """What the sweep says is read by the same programs."""
    command = [sys.executable, "-m", "celery", "-A", "tasks", "beat", "--loglevel", "INFO", "--pidfile="]
    schedule = ["--schedule", str(tmp_path / "schedule")]
    with running([*command, *schedule], tmp_path / "beat.log", {"CELERY_MLX_LOG_JSON": "1"}) as beat:
        wait_until(lambda: beat.alive() and redis_client.exists(keys.SWEEP), timeout_s=120, about="a sweep")
        assert beat.end() == 0
        lines = [json.loads(line) for line in beat.log().splitlines() if line.startswith("{")]
    assert any(line["message"].startswith("sweep: started") for line in lines)


def test_what_was_typed(redis_client: redis.Redis, tmp_path: Path) -> None:
    """Without ``-l`` a worker says that it is ready, and what is wrong with its options: too many slots, a queue of nobody."""
    command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "-n", "plain@here"]
    with running([*command, "-c", "900", "-Q", "tier-under-3B,celery"], tmp_path / "slots.log") as worker:
        wait_until(lambda: worker.alive() and "-c 900: the tiers of this worker have" in worker.log(), timeout_s=120)
        payload = wait_until(lambda: redis_client.hget(keys.WORKERS, "plain@here"))
        record = decode_record("plain@here", str(payload))
        assert isinstance(record, WorkerRecord)
        assert record.concurrency == record.slots["tier-under-3B"] < 900
        wait_until(lambda: f"plain@here is ready: {record.concurrency} slots for tier <3B" in worker.log())
        assert worker.end() == 0
        assert worker.log().splitlines()[-1].endswith("plain@here has stopped")
        said = [line for line in worker.log().splitlines() if not line.startswith("[")]
        assert len(said) == 1, "no banner, no warning of Celery's"
        assert said[0].startswith("worker: draining: running requests go on")
    with running([*command, "-Q", "default"], tmp_path / "queue.log") as worker:
        wait_until(
            lambda: worker.alive() and "no request is routed to the queue 'default'" in worker.log(), timeout_s=120
        )
