"""Celery's idioms, each as a Celery user would write it, against real workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from celery import chain, chord, group, xmap, xstarmap
from celery.exceptions import ChordError

from tasks.client.request.conversation import ChatMessage
from tasks.engine.fake import chat_prompt, fake_text
from tasks.errors import InvalidRequest, UnknownModel
from tasks.server import keys
from tasks.server.requirements import WORKER
from tests.support import ROOT, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery
    from redis import Redis

    from tasks.generate import GenerateTask
    from tests.conftest import StartWorker
    from tests.support import Worker

pytestmark = pytest.mark.xdist_group("idioms")
WAIT_S = 60.0
MODEL = "fake:5"
#: The same for the worker that has one slot.
NARROW = "fake:10@3-7B"
SECRET = "geheimnis"


@pytest.fixture(scope="module")
def generate(shared_app: Celery) -> GenerateTask:
    from tasks import generate

    return generate


@pytest.fixture(scope="module", autouse=True)
def wide(shared_worker: StartWorker, shared_redis: Redis) -> Worker:
    """A worker of the smallest tier, and of requests that name no queue; from then on Redis counts its commands."""
    shared_redis.config_resetstat()
    return shared_worker("-c", "8", "-Q", "tier-under-3B,celery", env={"CELERY_MLX_MODELS": MODEL})


@pytest.fixture(scope="module")
def narrow(shared_worker: StartWorker) -> Worker:
    """A worker of another tier, with a single slot."""
    return shared_worker(
        "-c", "1", "-Q", "tier-3-7B", env={"CELERY_MLX_MODELS": NARROW, "CELERY_MLX_HEARTBEAT_S": "0.2"}
    )


def busy(worker: Worker) -> int:
    record = worker.record()
    assert record is not None
    return sum(record.busy.values())


class TestCanvas:
    def test_group(self, generate: GenerateTask) -> None:
        """A group's answers come in its order, and each of them streams."""
        result = group(generate.s(prompt=f"g{n}", model=MODEL, max_tokens=5) for n in range(5)).apply_async()
        assert [answer["text"] for answer in result.get(timeout=WAIT_S)] == [
            fake_text(f"g{n}", None, 5) for n in range(5)
        ]
        first = generate.AsyncResult(result.results[0].id)
        assert "".join(chunk.text for chunk in first.stream(timeout=WAIT_S)) == fake_text("g0", None, 5)

    def test_chain(self, generate: GenerateTask) -> None:
        """A model's answer goes into the next prompt, as a text, in a message, or as a message of its own."""
        one = fake_text("one", None, 3)
        two = fake_text(f"Say: {one}", None, 3)
        three_messages = [{"role": "user", "content": f"Again: {two}"}]
        three = fake_text(chat_prompt(three_messages), None, 3)
        four_messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": three}]
        common: dict[str, Any] = {"model": MODEL, "max_tokens": 3}
        result = chain(
            generate.s(prompt="one", **common),
            generate.s(prompt="Say: {previous}", **common),
            generate.s(messages=[{"role": "user", "content": "Again: {previous}"}], **common),
            generate.s(messages=four_messages[:1], **common),
        ).delay()
        assert result.get(timeout=WAIT_S)["text"] == fake_text(chat_prompt(four_messages), None, 3)
        assert "".join(chunk.text for chunk in generate.AsyncResult(result.parent.id).stream(timeout=WAIT_S)) == three

    def test_chord(self, generate: GenerateTask) -> None:
        """A chord's body gets all answers at once."""
        header = [generate.s(prompt=f"c{n}", model=MODEL, max_tokens=3) for n in range(3)]
        result = chord(header)(generate.s(prompt="Sum: {previous}", model=MODEL, max_tokens=3))
        together = "\n\n".join(fake_text(f"c{n}", None, 3) for n in range(3))
        assert result.get(timeout=WAIT_S)["text"] == fake_text(f"Sum: {together}", None, 3)

    def test_chord_with_a_failing_member(self, generate: GenerateTask) -> None:
        """One failing member of twenty fails the chord's body, as result and as stream, and none of the other members."""
        header = [generate.s(prompt="!fail" if n == 7 else f"d{n}", model=MODEL, max_tokens=3) for n in range(20)]
        result = chord(header)(generate.s(prompt="Sum: {previous}", model=MODEL, max_tokens=3))
        # Which of the two ``get`` finds first is Celery's: the body's error, or that of its parents.
        with pytest.raises((ChordError, InvalidRequest), match="asked the fake engine to fail"):
            result.get(timeout=WAIT_S)
        with pytest.raises(ChordError):
            list(generate.AsyncResult(result.id).stream(timeout=WAIT_S))
        members = [generate.AsyncResult(member.id) for member in result.parent.results]
        wait_until(lambda: all(member.ready() for member in members))
        assert [member.state for member in members] == ["FAILURE" if n == 7 else "SUCCESS" for n in range(20)]
        with pytest.raises(InvalidRequest):
            list(members[7].stream(timeout=WAIT_S))

    def test_link_error(self, generate: GenerateTask) -> None:
        """What is linked to an error runs when the request fails, and not otherwise."""
        ids = [str(uuid.uuid4()) for _ in range(2)]
        for task_id, prompt in zip(ids, ("!fail", "good"), strict=True):
            apology = generate.si(prompt="sorry", model=MODEL, max_tokens=3).set(task_id=task_id)
            generate.apply_async(kwargs={"prompt": prompt, "model": MODEL, "max_tokens": 3}, link_error=apology)
        assert generate.AsyncResult(ids[0]).get(timeout=WAIT_S)["text"] == fake_text("sorry", None, 3)
        assert generate.AsyncResult(ids[1]).state == "PENDING"

    def test_link_error_of_the_producer_s_own(self, generate: GenerateTask) -> None:
        """A chain whose first link fails runs no further, and the error is the chain's."""
        second = generate.s(prompt="{previous}", model=MODEL, max_tokens=3)
        result = chain(generate.s(prompt="!fail", model=MODEL), second).delay()
        with pytest.raises(InvalidRequest, match="asked the fake engine to fail"):
            result.get(timeout=WAIT_S)

    @pytest.mark.parametrize(
        ("values", "error"),
        [({"model": "nobody/knows-7b"}, UnknownModel), ({"top_p": 5}, InvalidRequest), ({"model": 5}, InvalidRequest)],
    )
    def test_a_later_link_that_is_wrong(
        self, generate: GenerateTask, wide: Worker, values: dict[str, Any], error: type[Exception]
    ) -> None:
        """A later link of a chain that is a bad request ends with its error, as result and on its stream."""
        second = generate.s(**{"prompt": "{previous}", "model": MODEL, **values})
        result = chain(generate.s(prompt="one", model=MODEL, max_tokens=1), second).delay()
        with pytest.raises(error):
            result.get(timeout=WAIT_S)
        with pytest.raises(error):
            list(generate.AsyncResult(result.id).stream(timeout=WAIT_S))
        assert result.parent.get(timeout=WAIT_S)["text"] == fake_text("one", None, 1)
        assert "Traceback" not in wide.log().partition(result.parent.id)[2]


class TestDirectCalls:
    REMEDIES = r"generate\.delay\(.*generate\.bulk\(.*generate\.apply\("

    def test_a_call(self, generate: GenerateTask) -> None:
        """Called like a function, the task says what to use; so does its signature."""
        with pytest.raises(InvalidRequest, match=self.REMEDIES):
            generate(prompt="x", model=MODEL)
        with pytest.raises(InvalidRequest, match=self.REMEDIES):
            generate.s(prompt="x", model=MODEL)()

    @pytest.mark.parametrize(
        "make",
        [lambda task: task.map(["x"]), lambda task: task.starmap([("x",)]), lambda task: task.chunks([("x",)], 1)],
        ids=["map", "starmap", "chunks"],
    )
    def test_map_and_its_kin(self, generate: GenerateTask, make: Callable[[GenerateTask], Any]) -> None:
        """``map``, ``starmap`` and ``chunks`` point to bulk and to a group where they are written."""
        with pytest.raises(InvalidRequest, match=r"use generate\.bulk\(.* or a group"):
            make(generate)

    @pytest.mark.parametrize("kind", [xmap, xstarmap])
    def test_a_map_that_reaches_a_worker(self, generate: GenerateTask, wide: Worker, kind: Any) -> None:
        """Celery's own ``map`` task, as another codebase may send it, fails with the same words, and the worker serves on."""
        sent = kind(generate.s(), [("x",)], app=generate.app).apply_async()
        with pytest.raises(InvalidRequest, match=self.REMEDIES):
            sent.get(timeout=WAIT_S)
        assert generate.delay(prompt="after", model=MODEL, max_tokens=1).get(timeout=WAIT_S)["worker"] == wide.node


class TestData:
    def test_objects_of_others(self, generate: GenerateTask) -> None:
        """Messages that are pydantic models, and numbers of numpy, are sent as what they hold, in each link of a chain."""
        message = ChatMessage(role="user", content="Hello")
        common: dict[str, Any] = {"model": MODEL, "max_tokens": np.int64(3), "n": 1, "stream": False}
        told = [{"role": "user", "content": "Hello"}]
        messages: Any = (message,)
        first = fake_text(chat_prompt(told), None, 3)
        assert generate.delay(messages=messages, **common).get(timeout=WAIT_S)["text"] == first
        linked = chain(generate.s(messages=messages, **common), generate.s(messages=[message], **common)).delay()
        second = fake_text(chat_prompt([*told, {"role": "user", "content": first}]), None, 3)
        assert linked.get(timeout=WAIT_S)["text"] == second

    @pytest.mark.parametrize(
        ("option", "said"),
        [
            ({"messages": []}, "messages: a parameter and not an option"),
            ({"max_tokens": 3}, "max_tokens: a parameter and not an option"),
            ({"priority": "low"}, "priority='low'"),
            ({"task_id": "a\nb"}, "task_id='a\\\\nb': use text"),
        ],
    )
    def test_options_that_would_be_swallowed(
        self, generate: GenerateTask, shared_redis: Redis, option: dict[str, Any], said: str
    ) -> None:
        """An option that Celery would pass over is an error where it is written, and nothing is sent; so it is of a signature."""
        with pytest.raises(InvalidRequest, match=said):
            generate.apply_async(kwargs={"prompt": "x", "model": NARROW}, **option)
        with pytest.raises(InvalidRequest, match=said):
            generate.s(prompt="x", model=NARROW).set(**option).apply_async()
        assert not shared_redis.llen("tier-3-7B")

    def test_any_id(self, generate: GenerateTask) -> None:
        """An id of any printable characters streams, is answered, has a place in its queue, and can be cancelled."""
        for task_id in ("two words", "{}", "*", "[ab]?\\", "ünïcode-日本語-🙂", "%s%n'\"", "-n", "x" * 256):
            values = {"model": MODEL, "max_tokens": 3}
            result = generate.apply_async(kwargs={"prompt": "one", **values}, task_id=task_id)
            assert "".join(chunk.text for chunk in result.stream(timeout=WAIT_S)) == fake_text("one", None, 3)
            assert generate.AsyncResult(task_id).get(timeout=WAIT_S)["text"] == fake_text("one", None, 3)
            assert result.position() is None
            long = generate.apply_async(
                kwargs={"prompt": "long", "model": MODEL, "max_tokens": 5000}, task_id=f"~{task_id[:200]}"
            )
            stream = long.stream(timeout=WAIT_S)
            next(stream)
            long.revoke(terminate=True)
            assert [chunk.finish_reason for chunk in stream][-1] == "cancelled"


class TestOptions:
    def test_countdown(self, generate: GenerateTask, narrow: Worker, shared_redis: Redis) -> None:
        """A request that waits for its time holds no slot: the only one runs another request meanwhile."""
        values: dict[str, Any] = {"model": NARROW, "max_tokens": 3}
        later = generate.apply_async(kwargs={"prompt": "later", **values}, countdown=3600)
        assert generate.delay(prompt="now", **values).get(timeout=WAIT_S)["text"] == fake_text("now", None, 3)
        assert shared_redis.zcard(keys.scheduled("tier-3-7B")) == 1
        soon = generate.apply_async(kwargs={"prompt": "soon", **values}, countdown=0.2)
        assert soon.get(timeout=WAIT_S)["text"] == fake_text("soon", None, 3)
        later.revoke(terminate=True)
        assert [chunk.finish_reason for chunk in later.stream(timeout=WAIT_S)] == ["cancelled"]

    def test_priority(self, generate: GenerateTask, narrow: Worker, shared_redis: Redis) -> None:
        """Of requests that wait the urgent ones run first, although they came last."""
        values: dict[str, Any] = {"model": NARROW, "max_tokens": 10}
        blocker = generate.delay(prompt="blocker", model=NARROW, max_tokens=5000)
        next(iter(blocker.stream(timeout=WAIT_S)))
        submitted: dict[str, tuple[Any, float]] = {}
        for urgency in (9, 5, 0):
            for n in range(2):
                result = generate.apply_async(kwargs={"prompt": f"p{urgency}-{n}", **values}, priority=urgency)
                submitted[f"{urgency}-{n}"] = result, json.loads(shared_redis.hget(keys.LEDGER, result.id) or "")["at"]
        blocker.revoke(terminate=True)
        begun = {
            name: at + result.get(timeout=WAIT_S)["timing"]["queued_ms"] / 1000
            for name, (result, at) in submitted.items()
        }
        order = [name[0] for name in sorted(begun, key=lambda name: begun[name])]
        assert order in [_order(exception) for exception in range(-1, 6)]

    def test_ignore_result(self, generate: GenerateTask) -> None:
        """Without a stored result the stream is all the same; of its state no more than that it has begun is ever known."""
        result = generate.apply_async(kwargs={"prompt": "only", "model": MODEL, "max_tokens": 3}, ignore_result=True)
        assert "".join(chunk.text for chunk in result.stream(timeout=WAIT_S)) == fake_text("only", None, 3)
        assert result.state == "STARTED"
        assert result.status().state == "ended"


def _order(exception: int) -> list[str]:
    """By urgency, where one fetch may be an eighth: it takes the least urgent first, so that nothing starves."""
    waiting = list("005599")
    return [waiting.pop(-1 if taken == exception else 0) for taken in range(6)]


class TestSendTask:
    """A process that has nothing of this project but its own Celery."""

    PROGRAM = """
import json, os, sys
from celery import Celery
app = Celery("elsewhere", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])
app.conf.redis_backend_use_ssl = None
options = json.loads(sys.argv[2])
result = app.send_task("tasks.generate", kwargs=json.loads(sys.argv[1]), **options)
print(json.dumps(result.get(timeout=60)))
assert not {"tasks", "worker_config"} & set(sys.modules)
"""

    def send(self, values: dict[str, Any], **options: Any) -> dict[str, Any]:
        """The answer, as that process gets it."""
        done = subprocess.run(
            [sys.executable, "-c", self.PROGRAM, json.dumps(values), json.dumps(options)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=150,
        )
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def test_to_a_queue(self, wide: Worker) -> None:
        """A request by name, into the queue of its tier."""
        answer = self.send({"prompt": "sent", "model": MODEL, "max_tokens": 3}, queue="tier-under-3B")
        assert (answer["text"], answer["worker"]) == (fake_text("sent", None, 3), wide.node)

    def test_to_no_queue(self, wide: Worker) -> None:
        """A request by name that names no queue is answered."""
        answer = self.send({"prompt": "sent", "model": MODEL, "max_tokens": 3})
        assert (answer["text"], answer["worker"]) == (fake_text("sent", None, 3), wide.node)

    def test_to_no_queue_for_another_tier(self, narrow: Worker) -> None:
        """A request that names no queue, and whose tier its first worker does not serve, is sent on to a worker that does."""
        answer = self.send({"prompt": "sent", "model": NARROW, "max_tokens": 3})
        assert (answer["text"], answer["worker"], answer["attempt"]) == (fake_text("sent", None, 3), narrow.node, 1)

    @pytest.mark.parametrize("priority", [0, 3, 5, 6, 9])
    def test_with_any_priority(self, priority: int) -> None:
        """Every priority that another codebase's Celery knows is answered, whatever its own steps are."""
        answer = self.send(
            {"prompt": "sent", "model": MODEL, "max_tokens": 1}, queue="tier-under-3B", priority=priority
        )
        assert answer["text"] == fake_text("sent", None, 1)


class TestRemoteControl:
    def test_inspect_active(self, generate: GenerateTask, shared_app: Celery, wide: Worker) -> None:
        """``inspect active`` shows a running request's model and lengths, and no word of its prompt."""
        result = generate.delay(prompt=f"{SECRET} {SECRET}", model=MODEL, max_tokens=5000)
        next(iter(result.stream(timeout=WAIT_S)))
        try:
            inspect = shared_app.control.inspect(destination=[wide.node], timeout=WAIT_S)
            (active,) = [request for request in inspect.active()[wide.node] if request["id"] == result.id]
        finally:
            result.revoke(terminate=True)
        assert SECRET not in json.dumps(active)
        assert active["kwargs"] == f"{{model='{MODEL}', prompt=<19 characters>, max_tokens=5000}}"
        assert active["name"] == "tasks.generate"
        assert active["delivery_info"]["routing_key"] == "tier-under-3B"

    def test_ping_and_stats(self, shared_app: Celery, wide: Worker) -> None:
        """A worker answers a ping while it works, and its statistics name the pool."""
        inspect = shared_app.control.inspect(destination=[wide.node], timeout=WAIT_S)
        assert inspect.ping() == {wide.node: {"ok": "pong"}}
        assert inspect.stats()[wide.node]["pool"]["implementation"] == "tasks.worker.celery.pool:EnginePool"

    def test_drain_and_resume(self, generate: GenerateTask, shared_app: Celery, narrow: Worker) -> None:
        """A worker that was told to take nothing more leaves requests in their queue until it is told to resume."""
        control = shared_app.control
        (answer,) = control.broadcast("drain", destination=[narrow.node], reply=True, timeout=WAIT_S)
        assert answer[narrow.node]["ok"] == "draining"
        result = generate.delay(prompt="drained", model=NARROW, max_tokens=1)
        wait_until(lambda: (record := narrow.record()) is not None and record.paused and record.status == "draining")
        assert not result.ready()
        (answer,) = control.broadcast("resume", destination=[narrow.node], reply=True, timeout=WAIT_S)
        assert answer[narrow.node]["ok"] in ("online", "starting")  # its model may still be loading
        assert result.get(timeout=WAIT_S)["text"] == fake_text("drained", None, 1)


SHOP = '''
"""Somebody else's application, which serves models too."""
from celery import Celery
from worker_config.celeryconfig import worker_options
from worker_config.settings import current_settings

app = Celery("shop", include=["tasks.generate"])
app.config_from_object(worker_options(current_settings()))
app.conf.task_default_queue = "shop"


@app.task
def order(number):
    return number + 1
'''

CUSTOMER = f"""
from shop import app, order
from tasks.generate import generate
assert generate.app is app, generate.app
print(order.delay(1).get(timeout=60))
result = generate.delay(prompt="from the shop", model="{MODEL}", max_tokens=3)
print("".join(chunk.text for chunk in result.stream(timeout=60)))
print(result.get(timeout=60)["worker"])
result = generate.apply_async(kwargs=dict(prompt="from the shop", model="fake:5@7-13B", max_tokens=3), queue="tier-7-13B")
print(result.get(timeout=60)["worker"])
"""


def test_another_application(shared_worker: StartWorker, shared_redis: Redis, tmp_path_factory: Any) -> None:
    """An application of somebody's own includes the task: its worker serves both, its own tasks go where they always went."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "shop.py").write_text(SHOP)
    env = {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    worker = shared_worker("-c", "4", "-Q", "shop,tier-7-13B", app="shop", env=env)
    done = subprocess.run(
        [sys.executable, "-c", CUSTOMER],
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    ordered, text, first, second = done.stdout.splitlines()
    assert ordered == "2"
    assert text == fake_text("from the shop", None, 3)
    assert second == worker.node
    assert first


def test_what_the_idioms_had_redis_do_is_required(shared_redis: Redis) -> None:
    """A server that lacks a command, be it one of Celery's or kombu's, is refused at the start, and not in the middle."""
    called = {name.partition("|")[0].removeprefix("cmdstat_").upper() for name in shared_redis.info("commandstats")}
    assert len(called) > 20
    # What is said at each start, and by redis-py as it connects.
    assert called - {"AUTH", "COMMAND", "CONFIG", "HELLO", "INFO"} <= set(WORKER.commands)
