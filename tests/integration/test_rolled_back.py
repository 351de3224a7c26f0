"""Redis comes back older than it was: no request is lost, no slot stuck, no journal has a hole, no answer contradicts itself."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Literal

import pytest
import redis

from tasks.broker.submission.sent import SENT
from tasks.engine.fake import fake_text
from tasks.errors import UnknownRequest
from tasks.messages.journal import Token, decode
from tasks.server import keys
from tests.conftest import PASSWORD, PORT, start_workers
from tests.durable import DurableServer, in_place_of
from tests.support import Reader, command_of, forget_connections, marked_processes, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.demo.embedded import EmbeddedServer
    from tasks.generate import GenerateTask
    from tests.conftest import StartWorker
    from tests.support import Worker

pytestmark = pytest.mark.xdist_group("rolled-back")
WAIT_S = 90.0
MODEL = "fake:20"
SLOTS = 8
ENV = {"CELERY_MLX_MODELS": MODEL, "CELERY_MLX_HEARTBEAT_S": "0.5", "CELERY_MLX_DEAD_AFTER_S": "3"}


@pytest.fixture(scope="module")
def server(session_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DurableServer]:
    """A server with an append-only file, in place of the other tests' server."""
    with in_place_of(session_server, DurableServer(tmp_path_factory.mktemp("durable"), PASSWORD, PORT)) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: DurableServer) -> Iterator[redis.Redis]:
    """A client of that server, whose answers are text."""
    with closing(redis.Redis.from_url(server.url, decode_responses=True)) as client:
        yield client


@pytest.fixture(scope="module")
def start(client: redis.Redis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartWorker]:
    """Starts workers that the module's tests share."""
    yield from start_workers(client, tmp_path_factory.mktemp("workers"))


@pytest.fixture(scope="module")
def workers(start: StartWorker, tmp_path_factory: pytest.TempPathFactory) -> list[Worker]:
    """Two workers, the first of which sweeps too."""
    schedule = str(tmp_path_factory.mktemp("beat") / "schedule")
    return [start("-B", "-s", schedule, "-c", str(SLOTS), env=ENV), start("-c", str(SLOTS), env=ENV)]


@pytest.fixture
def generate(server: DurableServer) -> GenerateTask:
    """The task, for a producer of that server."""
    from tasks import generate

    assert server.running
    forget_connections()
    return generate


class Sent:
    """A request with a reader."""

    def __init__(self, generate: GenerateTask, prompt: str, tokens: int) -> None:
        self.prompt, self.tokens = prompt, tokens
        self.result = generate.delay(prompt=prompt, model=MODEL, max_tokens=tokens)
        self.reader = Reader(self.result, WAIT_S)

    @property
    def wanted(self) -> str:
        """The undisturbed run's text."""
        return fake_text(self.prompt, None, self.tokens)

    def check(self, client: redis.Redis) -> None:
        """A reader from the start, a late one, the result and the journal all say the whole text, once."""
        assert self.reader.whole() == self.wanted
        assert self.result.get(timeout=WAIT_S)["text"] == self.wanted
        assert Reader(self.result, WAIT_S).whole() == self.wanted
        entries = stream(client, self.result.id)
        indices = [entry.index + n for entry in entries if isinstance(entry, Token) for n in range(len(entry.ids))]
        assert indices == list(range(self.tokens))
        assert [entry.type for entry in entries if entry.type == "end"] == ["end"]


def stream(client: redis.Redis, task_id: str) -> list[Any]:
    """A request's journal."""
    found: Any = client.xrange(keys.stream(task_id))
    return [decode(fields["d"]) for _, fields in found]


def tell(generate: GenerateTask, command: Literal["drain", "resume"], *workers: Worker) -> None:
    """Have workers take no requests, or take them again, and wait until they say so. A busy machine may lose a broadcast."""
    status = "draining" if command == "drain" else "online"
    for worker in workers:

        def has_heard(worker: Worker = worker) -> bool:
            generate.app.control.broadcast(command, destination=[worker.node], reply=True, timeout=2)
            record = worker.record()
            return record is not None and record.status == status

        wait_until(has_heard, timeout_s=WAIT_S, about=f"{worker.node} {status}")


def assert_nothing_is_left(client: redis.Redis, workers: list[Worker]) -> None:
    """No message is held or missed, and every slot is free."""

    def is_idle() -> bool:
        records = [worker.record() for worker in workers]
        held = client.keys(f"{keys.PREFIX}unacked:*")
        return not held and not client.hlen(keys.LEDGER) and all(record and not record.busy for record in records)

    wait_until(is_idle, timeout_s=WAIT_S, about="free slots and no message left")


def test_running_and_ended(
    generate: GenerateTask, workers: list[Worker], server: DurableServer, client: redis.Redis
) -> None:
    """Requests of which Redis forgets the second half or the end, or all there was, have their whole answers afterwards."""
    before = [Sent(generate, f"before {n}", 40 + 12 * n) for n in range(SLOTS)]
    wait_until(lambda: all(request.reader.indices for request in before), timeout_s=WAIT_S)
    server.save()
    after = [Sent(generate, f"after {n}", 5 + 25 * n) for n in range(SLOTS // 2)]
    wait_until(lambda: sum(bool(request.reader.finish_reasons) for request in before) >= 3, timeout_s=WAIT_S)
    wait_until(lambda: after[0].reader.finish_reasons, timeout_s=WAIT_S)
    wait_until(lambda: client.exists(f"celery-task-meta-{after[0].result.id}"))
    server.roll_back()
    for request in (*before, *after):
        request.check(client)
    assert_nothing_is_left(client, workers)


def test_queued(generate: GenerateTask, workers: list[Worker], server: DurableServer, client: redis.Redis) -> None:
    """Requests that are queued again by the rollback, and had run or run still, are answered as before."""
    tell(generate, "drain", *workers)
    sent = [Sent(generate, f"queued {n}", 10 + 20 * n) for n in range(SLOTS)]
    server.save()
    tell(generate, "resume", *workers)
    wait_until(lambda: sum(bool(request.reader.finish_reasons) for request in sent) >= 2, timeout_s=WAIT_S)
    server.roll_back()
    for request in sent:
        request.check(client)
    assert_nothing_is_left(client, workers)


def test_only_queued(generate: GenerateTask, workers: list[Worker], server: DurableServer, client: redis.Redis) -> None:
    """A request that only Redis knew is sent again by the reader of the process that sent it."""
    tell(generate, "drain", *workers)
    server.save()
    got, streamed = (generate.delay(prompt=f"only queued {n}", model=MODEL, max_tokens=5) for n in range(2))
    server.roll_back()
    forget_connections()
    tell(generate, "resume", *workers)
    reader = Reader(streamed, WAIT_S)
    assert got.get(timeout=WAIT_S)["text"] == fake_text("only queued 0", None, 5)
    assert reader.whole() == fake_text("only queued 1", None, 5)
    assert_nothing_is_left(client, workers)


def test_only_queued_by_another_process(
    generate: GenerateTask, workers: list[Worker], server: DurableServer, client: redis.Redis
) -> None:
    """Elsewhere such a request is gone: who waits for it is told so, and it can be sent again under its id."""
    tell(generate, "drain", *workers)
    server.save()
    values = {"prompt": "only queued", "model": MODEL, "max_tokens": 5}
    lost = generate.apply_async(kwargs=values)
    SENT.forget(lost.id)
    server.roll_back()
    for wait in (lambda: list(lost.stream(timeout=WAIT_S)), lambda: lost.get(timeout=WAIT_S)):
        with pytest.raises(UnknownRequest, match=lost.id):
            wait()
    forget_connections()
    again = generate.apply_async(kwargs=values, task_id=lost.id)
    tell(generate, "resume", *workers)
    assert again.get(timeout=WAIT_S)["text"] == fake_text("only queued", None, 5)
    assert_nothing_is_left(client, workers)


def test_taken_over(
    generate: GenerateTask, workers: list[Worker], start: StartWorker, server: DurableServer, client: redis.Redis
) -> None:
    """Redis forgets that a worker died, and that another one took its requests over: they go on after the last token."""
    victim = start("-c", str(SLOTS), env=ENV)
    tell(generate, "drain", *workers)
    sent = [Sent(generate, f"taken over {n}", 300) for n in range(SLOTS // 2)]
    wait_until(lambda: all(request.reader.indices for request in sent), timeout_s=WAIT_S)
    with standing_still(victim):  # a busy machine may need longer for what follows than the requests do
        server.save()
        victim.kill()
    seen = [len(request.reader.indices) for request in sent]
    tell(generate, "resume", *workers)
    wait_until(
        lambda: all(_attempts(client, request) >= 2 for request in sent), timeout_s=WAIT_S, about="second attempts"
    )
    wait_until(
        lambda: all(len(request.reader.indices) > count for request, count in zip(sent, seen, strict=True)),
        timeout_s=WAIT_S,
        about="tokens of the second attempts",
    )
    server.roll_back()
    for request in sent:
        request.check(client)
    assert_nothing_is_left(client, workers)


@contextmanager
def standing_still(worker: Worker) -> Iterator[None]:
    """Stop a worker's engines in the middle of their requests; they are gone afterwards."""
    engines = [process for process in marked_processes(worker.mark) if "tasks.engine" in command_of(process)]
    assert engines
    for engine in engines:
        engine.suspend()
    try:
        yield
    finally:
        for engine in engines:
            engine.kill()


def _attempts(client: redis.Redis, sent: Sent) -> int:
    return sum(entry.type == "claim" for entry in stream(client, sent.result.id))
