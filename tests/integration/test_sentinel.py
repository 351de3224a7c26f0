"""A promotion: Sentinel makes a replica that lagged the primary, and nobody is restarted."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery

from tasks.engine.fake import fake_text
from tasks.server import keys
from tasks.server.connection import connect
from tasks.server.requirements import require_server
from tests.conftest import start_workers
from tests.replicated import MASTER_NAME, Replicated
from tests.support import Reader, wait_until
from worker_config.celeryconfig import celery_options
from worker_config.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import redis

    from tasks.generate import GenerateTask
    from tests.conftest import StartWorker

pytestmark = [
    # Celery 5.7 stores and reads results with commands that redis-py 8 calls deprecated.
    pytest.mark.filterwarnings("ignore:Call to deprecated:DeprecationWarning"),
]
WAIT_S = 90.0
MODEL = "fake:20"
SLOTS = 8


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Replicated]:
    """A primary, a replica and a Sentinel."""
    with Replicated(tmp_path, "sesame") as pair:
        yield pair


@pytest.fixture
def generate(servers: Replicated) -> Iterator[GenerateTask]:
    """The task, of a producer that knows the Sentinel alone."""
    with Celery("shop", set_as_current=False, include=["tasks.generate"]) as app:
        app.loader.import_default_modules()
        app.config_from_object(celery_options(read_settings({"REDIS_URL": servers.url, "CELERY_MLX_ALLOW_FAKE": "1"})))
        task: Any = app.tasks["tasks.generate"]
        assert task.app is app
        yield task
        app.backend.result_consumer.stop()


@pytest.fixture
def client(servers: Replicated) -> Iterator[redis.Redis]:
    """A client of whichever server is the primary."""
    with closing(connect(servers.url)) as client:
        yield client


@pytest.fixture
def start(client: redis.Redis, tmp_path: Path) -> Iterator[StartWorker]:
    """Starts workers, which end with the test."""
    yield from start_workers(client, tmp_path)


def length(n: int) -> int:
    """How many tokens a request has: some end after the replica was cut off, also where that comes late."""
    return 30 + 60 * n


def count_ended(readers: list[Reader]) -> int:
    """How many streams have ended."""
    return sum(bool(reader.finish_reasons) for reader in readers)


def test_a_replica_that_lagged_is_promoted(
    servers: Replicated, client: redis.Redis, start: StartWorker, generate: GenerateTask, tmp_path: Path
) -> None:
    """Requests of which the new primary lacks the last tokens, the ends and the results have their whole answers, in streams and
    results, through broker, result backend and journals alike; new requests are answered, and nothing is left behind."""
    env = {"REDIS_URL": servers.url, "CELERY_MLX_MODELS": MODEL, "CELERY_MLX_HEARTBEAT_S": "0.5"}
    worker = start("-B", "-s", str(tmp_path / "beat"), "-c", str(SLOTS), env=env)
    sent = [generate.delay(prompt=f"p{n}", model=MODEL, max_tokens=length(n)) for n in range(SLOTS)]
    readers = [Reader(result, WAIT_S) for result in sent]
    wait_until(lambda: all(reader.indices for reader in readers), timeout_s=WAIT_S, about="first tokens")
    servers.cut()
    ended = count_ended(readers)
    late = Reader(generate.delay(prompt="late", model=MODEL, max_tokens=5), WAIT_S)
    wait_until(lambda: count_ended(readers) >= ended + 2, timeout_s=WAIT_S)
    servers.promote()
    for n, reader in enumerate(readers):
        assert reader.whole() == fake_text(f"p{n}", None, length(n))
        assert reader.result.get(timeout=WAIT_S)["text"] == reader.text
    assert late.whole() == late.result.get(timeout=WAIT_S)["text"] == fake_text("late", None, 5)
    wait_until(lambda: "had lost the end of request" in worker.log())
    after = generate.delay(prompt="after", model=MODEL, max_tokens=3)
    assert after.get(timeout=WAIT_S)["text"] == fake_text("after", None, 3)

    def is_idle() -> bool:
        record = worker.record()
        held = client.keys(f"{keys.PREFIX}unacked:*")
        return record is not None and not record.busy and not held and not client.hlen(keys.LEDGER)

    wait_until(is_idle, timeout_s=WAIT_S, about="free slots and no message left")


def test_the_name_is_wrong(servers: Replicated) -> None:
    """A name that the Sentinel does not know is an error that says what to look at."""
    url = servers.url.replace(MASTER_NAME, "nobody")
    with pytest.raises(Exception, match=r"No master found for 'nobody'.*master_name in REDIS_URL"):
        require_server(url)
