"""Who is alive and who is dead: by Redis's clock, after kill -9 and a quick restart, after a restart of Redis, after failures."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tasks.engine.fake import fake_text
from tasks.errors import ModelLoadFailed
from tasks.server import keys
from tests.support import Reader, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    import redis

    from tasks.client.result import GenerateResult
    from tasks.demo.embedded import EmbeddedServer
    from tasks.generate import GenerateTask
    from tasks.messages.registry import WorkerRecord
    from tests.conftest import StartWorker
    from tests.support import Worker

WAIT_S = 60.0
MODEL = "fake:20"
#: Longer than a busy machine lets a worker stand still.
DEAD_AFTER_S = 6.0
QUICK = {"CELERY_MLX_HEARTBEAT_S": "0.2", "CELERY_MLX_DEAD_AFTER_S": str(DEAD_AFTER_S)}
#: Loaded before anything else in a process; the process then lives an hour away from everybody.
OTHER_CLOCK = """
import time
real_time, real_time_ns = time.time, time.time_ns
time.time = lambda: real_time() + {offset}
time.time_ns = lambda: real_time_ns() + {offset} * 1_000_000_000
"""
#: A worker for whose memory of failures ten minutes pass at once, when a file is there.
LEAPS = """
import os
import time
from types import SimpleNamespace
from tasks.celery import app
from tasks.metrics import collector as metrics
from tasks.worker.engines import failures
def now():
    return time.monotonic() + 600 * os.path.exists({file!r})
failures.time = SimpleNamespace(monotonic=now)
failures.Failures.__init__.__defaults__ = (0.1,)
failures.RETRY_MOST_S = 0.2
metrics.MetricsCollector.__init__.__defaults__ = (now,)
"""


def begun(generate: GenerateTask, prompt: str, tokens: int) -> GenerateResult:
    """A request whose first token is there."""
    result = generate.delay(prompt=prompt, model=MODEL, max_tokens=tokens)
    next(iter(result.stream(timeout=WAIT_S)))
    return result


def record_of(worker: Worker) -> WorkerRecord:
    record = worker.record()
    assert record is not None
    return record


def departed(client: redis.Redis) -> list[str]:
    """The identities of those whose end is in the history."""
    from tasks.registry import Registry

    return [f"{event['node']}#{event['boot']}" for event in Registry(client).history()]


@pytest.mark.parametrize("offset", [3600, -3600])
def test_a_clock_that_is_an_hour_off(
    offset: int, generate: GenerateTask, worker: StartWorker, redis_client: redis.Redis, tmp_path: Path
) -> None:
    """A worker whose clock is an hour off is not taken for dead while it lives, and is once it was killed; what it ran goes
    on elsewhere, and its times in the record are Redis's."""
    (tmp_path / "sitecustomize.py").write_text(OTHER_CLOCK.format(offset=offset))
    odd = worker("-c", "2", env={**QUICK, "PYTHONPATH": str(tmp_path)})
    sweeper = worker("-B", "-s", str(tmp_path / "beat"), "-c", "2", env=QUICK)
    now: Any = redis_client.time()
    assert abs(record_of(odd).started_at - now[0]) < 1800
    boot, beats = record_of(odd).boot, record_of(odd).beat_at
    until = time.monotonic() + DEAD_AFTER_S + 2
    while time.monotonic() < until:
        assert record_of(odd).boot == boot
        assert odd.process.poll() is None
        time.sleep(0.05)
    assert record_of(odd).beat_at > beats
    assert departed(redis_client) == []

    results = [begun(generate, str(n), 500) for n in range(3)]
    wait_until(lambda: redis_client.hlen(keys.unacked(record_of(odd).identity)), about="a request on the odd worker")
    odd.kill()
    wait_until(lambda: f"{odd.node}#{boot}" in departed(redis_client), timeout_s=WAIT_S, about="its burial")
    answers = [result.get(timeout=WAIT_S) for result in results]
    assert [answer["text"] for answer in answers] == [fake_text(str(n), None, 500) for n in range(3)]
    assert {answer["worker"] for answer in answers} == {sweeper.node}


def test_killed_and_back_under_the_same_name(
    generate: GenerateTask, worker: StartWorker, redis_client: redis.Redis, tmp_path: Path
) -> None:
    """A worker that is killed and started again under its name, while the lease of before still stands, is registered, and
    answers what its predecessor held."""
    beat = ("-B", "-s", str(tmp_path / "beat"), "-c", "2", "-Q", "tier-under-3B")
    first = worker(*beat)
    identity = record_of(first).identity
    readers = [Reader(begun(generate, f"p{n}", 500)) for n in range(2)]
    waiting = generate.delay(prompt="waits", model=MODEL, max_tokens=5)
    assert redis_client.hlen(keys.unacked(identity)) == 2
    first.kill()
    assert redis_client.exists(keys.alive(identity))
    second = worker(*beat, "-n", first.node, online=False)
    second.node = first.node
    second.wait_until_online()
    assert record_of(second).identity != identity
    for n, reader in enumerate(readers):
        reader.join(WAIT_S)
        assert "".join(chunk.text for chunk in reader.chunks) == fake_text(f"p{n}", None, 500)
        assert reader.result.get(timeout=WAIT_S)["attempt"] == 2
    assert waiting.get(timeout=WAIT_S)["text"] == fake_text("waits", None, 5)
    wait_until(lambda: not redis_client.exists(keys.unacked(identity)), about="nothing is left of the predecessor")
    assert redis_client.hkeys(keys.WORKERS) == [first.node]
    wait_until(lambda: identity in departed(redis_client), about="its burial")


def test_redis_forgets_the_fleet(worker: StartWorker, redis_server: EmbeddedServer) -> None:
    """After Redis was killed and has come back empty, every worker is in the hash by its usual heartbeat."""
    workers = [worker("-c", "2") for _ in range(3)]
    identities = [record_of(member).identity for member in workers]
    redis_server.kill()
    redis_server.restart()
    wait_until(
        lambda: [member.record() and record_of(member).identity for member in workers] == identities,
        about="every worker's record",
    )
    assert all(member.process.poll() is None for member in workers)


def test_an_early_failure_is_forgotten(generate: GenerateTask, worker: StartWorker, tmp_path: Path) -> None:
    """A worker that failed at first is degraded and takes work all the same; after the window it is online, as if new."""
    later = tmp_path / "later"
    (tmp_path / "forgetful.py").write_text(LEAPS.format(file=str(later)))
    member = worker("-c", "2", env={**QUICK, "PYTHONPATH": str(tmp_path)}, app="forgetful")
    failed = 0
    while record_of(member).status != "degraded":
        with pytest.raises(ModelLoadFailed, match="no weights"):
            generate.delay(prompt="a", model="fake:1:load_error=no weights", max_tokens=5).get(timeout=WAIT_S)
        failed += 1
        time.sleep(0.2)
    assert record_of(member).metrics["error_rate"] == 1.0
    answer = generate.delay(prompt="b", model=MODEL, max_tokens=5).get(timeout=WAIT_S)
    assert answer["worker"] == member.node
    assert record_of(member).status == "degraded"
    later.touch()
    wait_until(lambda: record_of(member).status == "online", timeout_s=WAIT_S, about="the failure to be forgotten")
    assert record_of(member).reason == ""
    wait_until(lambda: record_of(member).metrics["error_rate"] == 0, about="the window to pass")
    assert generate.delay(prompt="c", model=MODEL, max_tokens=5).get(timeout=WAIT_S)["worker"] == member.node
    assert record_of(member).metrics["totals"]["failed"] == failed
