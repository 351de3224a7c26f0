"""Somebody else's application beside the fleet: its own worker, with a pool of Celery's, makes requests inside of its tasks."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from celery import chain

from tasks.broker.queues.limits import QueueLimit, write_limits
from tasks.engine.fake import fake_text
from tasks.errors import GenerationError, InvalidRequest, UnknownModel
from tasks.server import keys
from tests.support import MARK, ROOT, assert_gone, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis
    from celery import Celery

    from tasks.generate import GenerateTask
    from tests.conftest import StartWorker
    from tests.support import Worker

pytestmark = pytest.mark.xdist_group("shop")
WAIT_S = 60.0
QUEUE = "tier-under-3B"
MODEL = "fake:5"

SHOP = '''
"""The shop's application, with tasks of its own."""
from celery import Celery, chord, group
from worker_config.celeryconfig import broker_options
from worker_config.settings import current_settings

app = Celery("shop")
app.config_from_object(broker_options(current_settings()))
app.conf.update(task_default_queue="shop", task_routes=("tasks.models.routing.route_task",), worker_prefetch_multiplier=1)
from tasks.generate import generate


def tried(make):
    try:
        return make()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@app.task
def ask(values, **options):
    return tried(lambda: generate.apply_async(kwargs=values, **options).id)


@app.task
def ask_as(kind, values):
    member = generate.s(**values)
    make = {"signature": member.delay, "group": lambda: group(member, member)(), "chain": lambda: (member | member)(),
            "chord": lambda: chord([member, member])(member)}[kind]
    return tried(lambda: make().id)


@app.task
def word(text):
    return text


@app.task
def fail():
    raise ValueError("the shop is closed")


@app.task(bind=True)
def become(self, values):
    if not self.request.retries:
        raise self.retry(countdown=0)
    return self.replace(generate.s(**values))


@app.task(bind=True)
def text_of(self, answer):
    if not self.request.retries:
        raise self.retry(countdown=0)
    return answer["text"]
'''


@pytest.fixture(scope="module")
def generate(shared_app: Celery) -> GenerateTask:
    from tasks import generate

    return generate


@pytest.fixture(scope="module", autouse=True)
def node(shared_worker: StartWorker) -> Worker:
    """A worker of the fleet."""
    return shared_worker("-c", "4", "-Q", f"{QUEUE},celery", env={"CELERY_MLX_MODELS": MODEL})


@pytest.fixture(scope="module")
def shop(shared_redis: redis.Redis, shared_app: Celery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Celery]:
    """The shop's worker; what is sent by name goes to it."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "shop.py").write_text(SHOP)
    log = folder / "log"
    mark = uuid4().hex
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "shop",
        "worker",
        "-P",
        "threads",
        "-c",
        "2",
        "-n",
        "shop@here",
        "-l",
        "INFO",
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, MARK: mark, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until(lambda: b"shop@here ready" in log.read_bytes() or process.poll() is not None, timeout_s=WAIT_S)
        assert process.poll() is None, log.read_text()
        yield shared_app
    finally:
        process.terminate()
        process.wait(60)
        print(log.read_text())
        assert_gone(mark)


@pytest.fixture(autouse=True)
def unlimited(shared_redis: redis.Redis) -> None:
    """Queues as long as the floor, unless a test says otherwise."""
    shared_redis.delete(keys.LIMITS)


def tell(shop: Celery, name: str, *args: Any, **kwargs: Any) -> Any:
    """What one of the shop's tasks returns."""
    return shop.send_task(f"shop.{name}", args, kwargs, queue="shop").get(timeout=WAIT_S)


def test_a_request_of_a_task(shop: Celery, generate: GenerateTask) -> None:
    """A request that a task makes is answered like any other."""
    task_id = tell(shop, "ask", {"prompt": "x", "model": MODEL, "max_tokens": 3})
    assert generate.AsyncResult(task_id).get(timeout=WAIT_S)["text"] == fake_text("x", None, 3)


def test_a_request_in_a_queue_of_the_shop(shop: Celery, generate: GenerateTask, shared_redis: redis.Redis) -> None:
    """A producer without the route sends it to its own application's worker, which has no engines: that sends it on."""
    sent = shop.send_task("tasks.generate", kwargs={"prompt": "y", "model": MODEL, "max_tokens": 3}, queue="shop")
    assert sent.get(timeout=WAIT_S)["text"] == fake_text("y", None, 3)
    assert sum(len(chunk.ids) for chunk in generate.AsyncResult(sent.id).stream(timeout=WAIT_S)) == 3
    wrong = shop.send_task("tasks.generate", kwargs={"prompt": "y", "model": "nobody's"}, queue="shop")
    with pytest.raises(UnknownModel):
        wrong.get(timeout=WAIT_S)
    shared_redis.hdel(keys.LEDGER, wrong.id)  # as the sweep would


def test_a_task_that_retries_and_becomes_a_request(shop: Celery, generate: GenerateTask) -> None:
    """``self.replace(generate.s(...))`` after a ``self.retry()``: the task's id is the request's; a task behind it may retry."""
    become = shop.signature("shop.become", [{"prompt": "z", "model": MODEL, "max_tokens": 3}], queue="shop")
    run = chain(become, shop.signature("shop.text_of", queue="shop")).apply_async()
    assert run.get(timeout=WAIT_S) == fake_text("z", None, 3)
    assert run.parent.get(timeout=WAIT_S)["text"] == fake_text("z", None, 3)
    assert sum(len(chunk.ids) for chunk in generate.AsyncResult(run.parent.id).stream(timeout=WAIT_S)) == 3


@pytest.mark.parametrize("kind", ["signature", "group", "chain", "chord"])
def test_a_wrong_request_of_a_task(shop: Celery, shared_redis: redis.Redis, kind: str) -> None:
    """It is checked in the task that makes it, in each form that Celery has, and nothing is sent."""
    said = tell(shop, "ask_as", kind, {"prompt": "x", "model": MODEL, "top_p": 5})
    assert said.startswith("InvalidRequest: top_p=5")
    said = tell(shop, "ask_as", kind, {"prompt": "x", "model": "no/such-7b"})
    assert said.startswith("UnknownModel: model 'no/such-7b'")
    assert not shared_redis.llen("shop")
    assert not shared_redis.hlen(keys.LEDGER)


def test_a_wrong_option_of_a_task(shop: Celery) -> None:
    """Options are checked there too."""
    said = tell(shop, "ask", {"prompt": "x", "model": MODEL}, max_tokens=3)
    assert said.startswith("InvalidRequest: max_tokens: a parameter and not an option")


def test_nobody_serves_it(shop: Celery) -> None:
    """``require_worker`` is looked at in the task."""
    said = tell(shop, "ask", {"prompt": "x", "model": "fake:5@30B+", "require_worker": True})
    assert said.startswith("NoWorker: no live worker consumes tier-30B-plus")


@pytest.mark.parametrize("kind", ["signature", "group", "chain", "chord"])
def test_a_full_queue(shop: Celery, shared_redis: redis.Redis, kind: str) -> None:
    """The bound of a queue is that of a task's requests too."""
    write_limits(shared_redis, {QUEUE: QueueLimit(bound=0, per_s=0.0)})
    assert tell(shop, "ask_as", kind, {"prompt": "x", "model": MODEL}).startswith("QueueFull: 0 requests wait in")


class TestAfterATask:
    """What Celery sends when one of the shop's tasks has ended was accepted with it."""

    def test_a_link(self, shop: Celery, generate: GenerateTask, shared_redis: redis.Redis) -> None:
        """The next link of a chain is sent although the queue is full."""
        write_limits(shared_redis, {QUEUE: QueueLimit(bound=0, per_s=0.0)})
        first = shop.signature("shop.word", ("Paris",), queue="shop")
        answer = (
            (first | generate.s(prompt="Where is {previous}?", model=MODEL, max_tokens=3)).delay().get(timeout=WAIT_S)
        )
        assert answer["text"] == fake_text("Where is Paris?", None, 3)

    def test_a_chords_body(self, shop: Celery, generate: GenerateTask, shared_redis: redis.Redis) -> None:
        """So is the body of a chord of the shop's tasks."""
        from celery import chord

        write_limits(shared_redis, {QUEUE: QueueLimit(bound=0, per_s=0.0)})
        header = [shop.signature("shop.word", (text,), queue="shop") for text in ("Paris", "Rome")]
        result = chord(header)(generate.s(prompt="{previous}", model=MODEL, max_tokens=3))
        assert result.get(timeout=WAIT_S)["text"] == fake_text("Paris\n\nRome", None, 3)

    def test_an_errors_callback(self, shop: Celery, generate: GenerateTask, shared_redis: redis.Redis) -> None:
        """And what is linked to an error."""
        write_limits(shared_redis, {QUEUE: QueueLimit(bound=0, per_s=0.0)})
        apology = generate.si(prompt="sorry", model=MODEL, max_tokens=3).set(task_id="apology")
        shop.send_task("shop.fail", queue="shop", link_error=apology)
        assert generate.AsyncResult("apology").get(timeout=WAIT_S)["text"] == fake_text("sorry", None, 3)

    @pytest.mark.parametrize(
        ("values", "error"),
        [({"model": "no/such-7b"}, UnknownModel), ({"top_p": 5}, InvalidRequest), ({"model": 5}, InvalidRequest)],
    )
    def test_a_wrong_link(
        self, shop: Celery, generate: GenerateTask, values: dict[str, Any], error: type[GenerationError]
    ) -> None:
        """A link that is wrong ends with its error, as result and on its stream, and the task before it stays done."""
        first = shop.signature("shop.word", ("Paris",), queue="shop")
        result = (first | generate.s(**{"prompt": "{previous}", "model": MODEL, **values})).delay()
        with pytest.raises(error):
            list(generate.AsyncResult(result.id).stream(timeout=WAIT_S))
        with pytest.raises(error):
            result.get(timeout=WAIT_S)
        assert result.parent.get(timeout=WAIT_S) == "Paris"
