"""Fleets on several databases and servers do not meet, be their ids, names and requests' ids the same."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import redis
from celery import Celery

from tasks.broker.message.fingerprint import MARGIN_S
from tasks.demo.embedded import EmbeddedServer
from tasks.engine.fake import fake_text
from tasks.errors import QueueFull
from tasks.messages.registry import WorkerRecord
from tasks.registry import Registry
from tasks.server import keys
from tests.conftest import start_workers
from tests.support import Reader, wait_until
from worker_config.celeryconfig import celery_options
from worker_config.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tasks.generate import GenerateTask
    from tests.support import Worker

pytestmark = [
    # Celery 5.7 stores and reads results with commands that redis-py 8 calls deprecated.
    pytest.mark.filterwarnings("ignore:Call to deprecated:DeprecationWarning"),
]
WAIT_S = 60.0
MODEL = "fake:20"
NODE = "same@here"


def producer(url: str, **settings: Any) -> Celery:
    """An application with a Redis and settings of its own."""
    app = Celery("shop", set_as_current=False, include=["tasks.generate"])
    app.loader.import_default_modules()
    app.config_from_object(celery_options(replace(Settings(allow_fake=True), redis_url=url, **settings)))
    return app


class Fleet:
    """One database of a server, with a producer and a worker."""

    def __init__(self, url: str, folder: Path) -> None:
        folder.mkdir()
        self.client = redis.Redis.from_url(url, decode_responses=True)
        self.app = producer(url)
        self.generate: GenerateTask = self.app.tasks["tasks.generate"]
        self._starts = start_workers(self.client, folder)
        env = {"REDIS_URL": url, "CELERY_MLX_MODELS": MODEL, "CELERY_MLX_HEARTBEAT_S": "0.5"}
        self.worker: Worker = next(self._starts)(
            *("-B", "-s", str(folder / "beat"), "-c", "4", "-n", NODE), env=env, online=False
        )
        self.worker.node = NODE

    def send(self, task_id: str, prompt: str, tokens: int) -> Any:
        """A request with an id of its producer's choice."""
        values = {"prompt": prompt, "model": MODEL, "max_tokens": tokens}
        return self.generate.apply_async(kwargs=values, task_id=task_id)

    def close(self) -> None:
        """End everything."""
        next(self._starts, None)
        self.app.close()
        self.client.close()


@pytest.fixture
def fleets(redis_server: EmbeddedServer, tmp_path: Path) -> Iterator[list[Fleet]]:
    """Two databases of one server, and another server."""
    base = redis_server.url.rpartition("/")[0]
    with EmbeddedServer() as other, ExitStack() as stack:
        fleets = []
        for n, url in enumerate([f"{base}/0", f"{base}/1", other.url]):
            fleets.append(Fleet(url, tmp_path / str(n)))
            stack.callback(fleets[n].close)
        for fleet in fleets:
            fleet.worker.wait_until_online()
        yield fleets


def test_they_do_not_meet(fleets: list[Fleet]) -> None:
    """Streams, results, revokes, control and the registry of each are its own."""
    readers = [Reader(fleet.send("same", f"p{n}", 60 + 40 * n)) for n, fleet in enumerate(fleets)]
    waiting = [reader.result.get(timeout=WAIT_S)["text"] for reader in readers]
    for n, reader in enumerate(readers):
        assert reader.whole() == waiting[n] == fake_text(f"p{n}", None, 60 + 40 * n)
    # A cancel in one is none in the others.
    long = [Reader(fleet.send("long", f"q{n}", 5000 if n == 1 else 200)) for n, fleet in enumerate(fleets)]
    wait_until(lambda: all(reader.indices for reader in long), timeout_s=WAIT_S)
    fleets[1].generate.AsyncResult("long").revoke(terminate=True)
    long[1].join(WAIT_S)
    assert long[1].finish_reasons == ["cancelled"]
    for n in (0, 2):
        assert long[n].whole() == fake_text(f"q{n}", None, 200)
    # Nor is any other broadcast, and the same names of workers are no duplicates.
    for fleet in fleets:
        wait_until(lambda fleet=fleet: fleet.app.control.ping(timeout=3) == [{NODE: {"ok": "pong"}}], timeout_s=WAIT_S)  # type: ignore[misc]
    fleets[1].app.control.broadcast("drain", destination=[NODE], reply=True, timeout=WAIT_S)
    wait_until(lambda: (record := fleets[1].worker.record()) and record.status == "draining")
    for n in (0, 2):
        record = fleets[n].worker.record()
        assert record is not None
        assert record.status == "online"
        assert fleets[n].send("after", "after", 2).get(timeout=WAIT_S)["text"] == fake_text("after", None, 2)


def test_settings(redis_server: EmbeddedServer) -> None:
    """Two applications of one process, on two servers: each has its own default model, bound and time to live."""
    with EmbeddedServer() as other, ExitStack() as stack:
        found = []
        for url, settings in (
            (redis_server.url, {"default_model": "fake:1", "result_ttl_s": 1_000, "queue_floor": 1}),
            (other.url, {"default_model": "fake:1@7-13B", "result_ttl_s": 5_000}),
        ):
            app = stack.enter_context(producer(url, **settings))
            client = stack.enter_context(closing(redis.Redis.from_url(url, decode_responses=True)))
            found.append((app.tasks["tasks.generate"], client))
        for generate, client in found:
            generate.apply_async(kwargs={"prompt": "a"}, task_id="a")
            assert client.hlen(keys.LEDGER) == 1
        (first, one), (second, two) = found
        assert (one.llen("tier-under-3B"), two.llen("tier-7-13B")) == (1, 1)
        assert one.ttl(keys.request("a")) <= 1_000 + MARGIN_S < two.ttl(keys.request("a"))
        second.apply_async(kwargs={"prompt": "b"})
        with pytest.raises(QueueFull):
            first.apply_async(kwargs={"prompt": "b"})


def test_announcements(redis_server: EmbeddedServer) -> None:
    """What the registry of one announces is not heard in the other."""
    base = redis_server.url.rpartition("/")[0]
    with closing(redis.Redis.from_url(f"{base}/0")) as zero, closing(redis.Redis.from_url(f"{base}/1")) as one:
        with closing(zero.pubsub()) as heard:  # type: ignore[no-untyped-call]
            heard.subscribe(keys.EVENTS, keys.channel_prefix(1) + keys.EVENTS)
            for _ in range(2):
                wait_until(heard.get_message, about="the subscription")
            Registry(one).register(WorkerRecord(node="mac@lab", boot="b1", status="online"), 1_000)
            message = wait_until(lambda: heard.get_message(ignore_subscribe_messages=True))
        assert message["channel"] == b"/1.celery-mlx:events"
