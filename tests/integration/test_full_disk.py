"""Redis's disk is full: what runs waits for room and ends whole, and what is sent meanwhile is refused with the reason."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import redis

from tasks.engine.fake import fake_text
from tasks.errors import BrokerUnavailable
from tasks.server import keys
from tests.conftest import PASSWORD, PORT, start_workers
from tests.durable import FillableServer, in_place_of
from tests.support import Reader, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tasks.demo.embedded import EmbeddedServer
    from tests.conftest import StartWorker

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux changes the limits of a running process"),
]
WAIT_S = 60.0
MODEL = "fake:60"
TOKENS = 150
#: One more than there are slots: the last one waits in its queue while the disk is full.
REQUESTS, SLOTS = 5, 4
DEAD_AFTER_S = 3.0
ENV = {
    "CELERY_MLX_MODELS": MODEL,
    "CELERY_MLX_HEARTBEAT_S": "0.5",
    "CELERY_MLX_DEAD_AFTER_S": f"{DEAD_AFTER_S}",
}


@pytest.fixture
def server(session_server: EmbeddedServer, tmp_path: Path) -> Iterator[FillableServer]:
    """A server whose disk can be full, in place of the other tests' server."""
    with in_place_of(session_server, FillableServer(tmp_path, PASSWORD, PORT)) as server:
        yield server


@pytest.fixture
def client(server: FillableServer) -> Iterator[redis.Redis]:
    """A client of that server, whose answers are text."""
    with closing(redis.Redis.from_url(server.url, decode_responses=True)) as client:
        yield client


@pytest.fixture
def start(client: redis.Redis, tmp_path: Path) -> Iterator[StartWorker]:
    """Starts workers of that server."""
    yield from start_workers(client, tmp_path)


def test_full_disk(server: FillableServer, client: redis.Redis, start: StartWorker, tmp_path: Path) -> None:
    """For longer than a worker's lease nothing can be written: no request is lost, and a new one is refused by name."""
    from tasks import generate

    worker = start("-B", "-s", str(tmp_path / "beat"), "-c", str(SLOTS), env=ENV)
    record = worker.record()
    assert record is not None
    sent = [generate.delay(prompt=f"p{n}", model=MODEL, max_tokens=TOKENS) for n in range(REQUESTS)]
    readers = [Reader(result, WAIT_S) for result in sent]
    wait_until(lambda: sum(bool(reader.indices) for reader in readers) == SLOTS, timeout_s=WAIT_S)

    server.fill()
    wait_until(
        lambda: "make room on the disk" in worker.log(),
        timeout_s=WAIT_S,
        about="a worker that says why it cannot write",
    )
    with pytest.raises(BrokerUnavailable, match=r"File too large\): make room on the disk"):
        generate.delay(prompt="refused", model=MODEL, max_tokens=1)
    wait_until(lambda: not client.exists(keys.alive(record.identity)), timeout_s=WAIT_S, about="the lease's end")
    assert all(reader.is_alive() for reader in readers)
    server.make_room()

    assert [reader.whole() for reader in readers] == [fake_text(f"p{n}", None, TOKENS) for n in range(REQUESTS)]
    assert [result.get(timeout=WAIT_S)["text"] for result in sent] == [reader.text for reader in readers]
    after = generate.delay(prompt="after", model=MODEL, max_tokens=2)
    assert after.get(timeout=WAIT_S)["text"] == fake_text("after", None, 2)
    wait_until(lambda: not client.hlen(keys.LEDGER) and not client.keys(f"{keys.PREFIX}unacked:*"))
