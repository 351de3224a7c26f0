"""What a request costs, in counts: a guard against what a timing on a busy machine would not show.

The bounds are what was measured (in brackets) and a little more; who needs more of something says why here.
"""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.support import wait_until

if TYPE_CHECKING:
    import redis
    from celery import Celery

    from tasks.generate import GenerateTask
    from tests.conftest import StartWorker
    from tests.support import Worker

# Celery 5.7 stores and reads results with commands that redis-py 8 calls deprecated.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Call to deprecated:DeprecationWarning"),
    pytest.mark.xdist_group("counts"),
]

WAIT_S = 60.0
MODEL = "fake:20"
REQUESTS, TOKENS, STREAMS = 10, 10, 8


@pytest.fixture(scope="module")
def generate(shared_app: Celery) -> GenerateTask:
    from tasks import generate

    assert generate.app is shared_app
    return generate


@pytest.fixture(scope="module")
def node(shared_worker: StartWorker) -> Worker:
    """A worker that beats and polls so rarely that it adds nothing to the counts."""
    return shared_worker("-c", str(STREAMS), env={"CELERY_MLX_MODELS": MODEL, "CELERY_MLX_HEARTBEAT_S": "3600"})


class Commands:
    """Redis commands since it was made, those that scripts call included."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._before = self._counts()
        self._since = time.monotonic()

    def _counts(self) -> Counter[str]:
        stats: Any = self._client.info("commandstats")
        return Counter({name.removeprefix("cmdstat_"): value["calls"] for name, value in stats.items()})

    def __getitem__(self, name: str) -> int:
        return (self._counts() - self._before)[name]

    @property
    def looks(self) -> int:
        """How often the worker may have looked around since.

        At the lanes four times a second, at the schedule and at what was set aside once; it says what it serves, every 2 s.
        """
        return 7 * self.seconds

    @property
    def seconds(self) -> int:
        """How often the worker, where it has nothing to do, may have asked for a message."""
        return math.ceil(time.monotonic() - self._since)

    def total(self) -> int:
        return sum((self._counts() - self._before).values())


@pytest.fixture
def commands(node: Worker, shared_redis: redis.Redis, generate: GenerateTask) -> Commands:
    """Counts from the moment when everything has been loaded and subscribed."""
    warm = generate.delay(prompt="warm", model=MODEL, max_tokens=1)
    assert [chunk.finish_reason for chunk in warm.stream(timeout=WAIT_S)][-1] == "length"
    wait_until(lambda: not shared_redis.hlen(f"celery-mlx:unacked:{identity(node)}"))
    return Commands(shared_redis)


def identity(node: Worker) -> str:
    record = node.record()
    assert record is not None
    return record.identity


def test_a_request(commands: Commands, generate: GenerateTask) -> None:
    """One at a time, each with one reader: what a producer, a worker and a reader send in all."""
    for number in range(REQUESTS):
        result = generate.delay(prompt=str(number), model=MODEL, max_tokens=TOKENS)
        assert [chunk.index for chunk in result.stream(timeout=WAIT_S)].count(0) == 1
    wait_until(lambda: commands["hdel"] >= 2 * REQUESTS, about="every message acknowledged")
    # Put, a fetch that claims, answer, and one append for each token; a start for which no token came soon is one more [13].
    assert commands["evalsha"] <= REQUESTS * (3 + TOKENS + 1) + commands.looks
    # Start, tokens, end and claim [12 to 13]; each is published once, and the result is.
    assert commands["xadd"] <= REQUESTS * (TOKENS + 3)
    assert commands["publish"] <= REQUESTS * (TOKENS + 4)
    wait_until(lambda: commands["setex"] == REQUESTS, about="a result for each request, stored once")
    # A reader subscribes to the journal, nobody to the result, and reads once or twice. Each append looks at the last entry.
    assert commands["subscribe"] == REQUESTS
    assert commands["xrevrange"] <= REQUESTS * (TOKENS + 8)
    # The worker asks once for each, and once a second where nothing comes.
    assert commands["brpop"] <= 2 * REQUESTS + 5 + commands.seconds
    # [92 with ten tokens, and what the worker's looks at its lanes take]
    assert commands.total() <= 95 * REQUESTS + 40 * commands.seconds


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="only Linux lets a process choose its cores")
@pytest.mark.usefixtures("commands")
def test_one_core(node: Worker) -> None:
    """The worker's threads are on one core, but for the one that chooses it, and its engine has all that the worker was given."""
    record = node.record()
    assert record is not None
    given = os.sched_getaffinity(0)
    kept = []
    for thread in psutil.Process(node.pid).threads():
        with suppress(ProcessLookupError):  # it has just ended
            kept.append(os.sched_getaffinity(thread.id))
    assert len(given) == 1 or sum(len(cores) > 1 for cores in kept) <= 1
    assert os.sched_getaffinity(record.engines[0].pid or 0) == given


def test_a_token(commands: Commands, generate: GenerateTask) -> None:
    """A longer answer costs one append for each of its tokens, and nothing else."""
    tokens = 300
    result = generate.delay(prompt="long", model=MODEL, max_tokens=tokens)
    assert (
        len([chunk for chunk in result.stream(timeout=WAIT_S) if chunk.ids]) >= tokens // 10
    )  # what comes late comes together
    assert commands["evalsha"] <= tokens + 10 + commands.looks
    assert commands["xadd"] <= tokens + 3


def test_a_step_of_several(commands: Commands, generate: GenerateTask, shared_app: Celery, node: Worker) -> None:
    """Tokens of one step go out in one call, whoever they belong to."""
    control = shared_app.control
    assert control.broadcast("drain", destination=[node.node], reply=True, timeout=WAIT_S)
    results = [generate.delay(prompt=str(number), model=MODEL, max_tokens=100) for number in range(STREAMS)]
    assert control.broadcast("resume", destination=[node.node], reply=True, timeout=WAIT_S)
    for result in results:
        assert result.get(timeout=WAIT_S)["usage"]["completion_tokens"] == 100
    # About 100 steps, half as many again where some begin late, and what each request costs apart from them; one by one it
    # would be 800 appends.
    assert commands["evalsha"] <= 150 + 10 + 8 * STREAMS + commands.looks
    assert commands["xadd"] <= STREAMS * (100 + 3)


def test_messages_taken_together(commands: Commands, generate: GenerateTask, shared_app: Celery, node: Worker) -> None:
    """Requests that wait for a worker come to it several at a time."""
    control = shared_app.control
    assert control.broadcast("drain", destination=[node.node], reply=True, timeout=WAIT_S)
    results = [generate.delay(prompt=str(number), model=MODEL, max_tokens=1) for number in range(STREAMS)]
    before, idle = commands["brpop"], commands.seconds
    assert control.broadcast("resume", destination=[node.node], reply=True, timeout=WAIT_S)
    for result in results:
        assert result.get(timeout=WAIT_S)["text"]
    # Where it has nothing more to do, it asks once a second.
    assert commands["brpop"] - before <= STREAMS - 3 + commands.seconds - idle
