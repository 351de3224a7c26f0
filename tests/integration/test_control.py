"""Remote control: no broadcast of any shape, and no argument of any type, ends a worker or stops a service of it."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import uuid
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from tasks.broker.message.message import MAX_BODY_BYTES, MAX_CONTROL_BYTES
from tasks.engine.fake import fake_text
from tasks.worker.celery.arguments import MOST_IDS
from tasks.worker.celery.control import IDS_AT_ONCE
from tests.support import ROOT, wait_until
from worker_config.settings import environment_with

if TYPE_CHECKING:
    import redis
    from celery import Celery

    from tasks.generate import GenerateTask
    from tests.conftest import StartWorker
    from tests.support import Worker

pytestmark = pytest.mark.xdist_group("control")
WAIT_S = 60.0
QUEUE = "tier-under-3B"
MODEL = "fake:1"
#: Where Celery broadcasts in database 0.
TOPIC = "/0.celery.pidbox"
DEEP = "[" * 50_000 + "]" * 50_000


@pytest.fixture(scope="module")
def generate(shared_app: Celery) -> GenerateTask:
    from tasks import generate

    return generate


@pytest.fixture(scope="module")
def node(shared_worker: StartWorker) -> Worker:
    return shared_worker("-c", "2", "-Q", QUEUE, env={"CELERY_MLX_MODELS": MODEL})


def lives(generate: GenerateTask, node: Worker) -> bool:
    """Whether the worker answers a request and a ping, on the connection that it had from the start."""
    name = uuid.uuid4().hex
    assert generate.delay(prompt=name, model=MODEL, max_tokens=2).get(timeout=WAIT_S)["text"] == fake_text(
        name, None, 2
    )
    assert ask(generate, node, "ping") == {"ok": "pong"}
    assert node.process.poll() is None
    assert "Connection to broker lost" not in node.log()
    return "Traceback" not in node.log()


def ask(generate: GenerateTask, node: Worker, command: str, **arguments: Any) -> dict[str, Any]:
    """What the worker answers to a command."""
    replies = generate.app.control.broadcast(
        command, arguments, destination=[node.node], reply=True, timeout=WAIT_S, limit=1
    )
    answer: dict[str, Any] = replies[0][node.node]
    return answer


def broadcast(client: redis.Redis, message: Any) -> None:
    """Send to every worker's mailbox whatever this is."""
    assert client.publish(TOPIC, message if isinstance(message, str) else json.dumps(message)) == 1


def envelope(body: Any, *, packed: bytes | None = None, **headers: Any) -> dict[str, Any]:
    """A control message as kombu sends it."""
    return {
        "body": base64.b64encode(packed or json.dumps(body).encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers,
        "properties": {
            "body_encoding": "base64",
            "priority": 0,
            "delivery_tag": str(uuid.uuid4()),
            "delivery_info": {"exchange": "celery.pidbox", "routing_key": ""},
        },
    }


def wrong_broadcasts() -> list[Any]:
    """Broadcasts that say nothing, each in its own way."""
    ping: dict[str, Any] = {"method": "ping", "arguments": {}, "destination": None}
    bodies: list[Any] = [
        *(None, 5, "ping", [], {}, [ping]),
        {"method": None},
        {"method": ["ping"]},
        {"method": {}, "arguments": {}},
        {"method": "no_such_command"},
        {**ping, "arguments": [1]},
        {**ping, "arguments": {"self": 1}},
        {**ping, "destination": 5},
        {**ping, "destination": [[]]},
        {**ping, "pattern": 5, "matcher": "glob"},
        {**ping, "pattern": "(", "matcher": "pcre"},
        {**ping, "pattern": "*", "matcher": "soundex"},
        {**ping, "reply_to": 5},
        {**ping, "reply_to": {}},
        {**ping, "reply_to": {"exchange": [], "routing_key": {}}, "ticket": []},
        {**ping, "self": 1, "method": "ping"},
    ]
    whole: list[Any] = [
        *("nonsense", "{", "null", "5", "[]", '"text"', "{}", DEEP, "\x00"),
        '{"__type__": "uuid", "__value__": []}',
        {**envelope(ping), "headers": []},
        {**envelope(ping), "properties": {}},
        {**envelope(ping), "body": 5},
        {**envelope(ping), "body": "!!!"},
        {**envelope(ping), "body": base64.b64encode(DEEP.encode()).decode()},
        {**envelope(ping), "content-type": "application/x-python-serialize"},
        envelope(ping, clock="late"),
        envelope(ping, clock=10**30),
        envelope(ping, clock=[]),
        envelope(ping, expires="never"),
        envelope(None, packed=zlib.compress(b" " * (MAX_BODY_BYTES + 1)), compression="gzip"),
        envelope(ping, compression="zip-of-mine"),
        json.dumps(envelope(ping)) + " " * MAX_CONTROL_BYTES,
    ]
    return [*whole, *map(envelope, bodies)]


def test_whatever_is_broadcast(generate: GenerateTask, node: Worker, shared_redis: redis.Redis) -> None:
    """A broadcast that is not JSON, has a wrong shape or passes a bound is dropped; the worker goes on as before."""
    assert lives(generate, node)
    for message in wrong_broadcasts():
        broadcast(shared_redis, message)
    assert lives(generate, node)
    for bound in (MAX_BODY_BYTES, MAX_CONTROL_BYTES):
        assert str(bound) in node.log()


#: Commands with arguments of a wrong type, or far too many.
WRONG: list[tuple[str, dict[str, Any]]] = [
    ("revoke", {"task_id": [[]]}),
    ("revoke", {"task_id": 5}),
    ("revoke", {"task_id": ["x"] * (MOST_IDS + 1)}),
    ("revoke", {"task_id": "x", "terminate": "yes please"}),
    ("terminate", {"task_id": "x", "signal": []}),
    ("revoke_by_stamped_headers", {"headers": ["no value"]}),
    ("revoke_by_stamped_headers", {"headers": 5}),
    ("time_limit", {"task_name": "tasks.generate", "soft": "soon", "hard": []}),
    ("time_limit", {"task_name": "tasks.generate", "hard": 1e300}),
    ("time_limit", {"task_name": "tasks.generate", "soft": 2, "hard": 1}),
    ("rate_limit", {"task_name": "tasks.generate", "rate_limit": {}}),
    ("rate_limit", {"task_name": "tasks.generate", "rate_limit": "10/m"}),
    ("add_consumer", {"queue": 5}),
    ("add_consumer", {"queue": None}),
    ("add_consumer", {"queue": "q", "exchange_type": "carrier pigeon"}),
    ("add_consumer", {"queue": "q", "bindings": 5}),
    ("cancel_consumer", {"queue": {}}),
    ("query_task", {"ids": {}}),
    ("registered", {"taskinfoitems": 5}),
    ("hello", {"from_node": "a@b", "revoked": 5}),
    ("load_model", {"name": 5}),
    ("load_model", {}),
    ("unload_model", {"name": None}),
    ("no_such_command", {}),
]


@pytest.mark.parametrize(("command", "arguments"), WRONG)
def test_wrong_arguments(generate: GenerateTask, node: Worker, command: str, arguments: dict[str, Any]) -> None:
    """A command with a wrong argument is answered with one line that names it, and has no effect."""
    said = ask(generate, node, command, **arguments)["error"]
    assert command in said or command == "rate_limit"
    assert "\n" not in said


def test_no_wrong_argument_had_an_effect(generate: GenerateTask, node: Worker) -> None:
    """After all of them the worker serves as before."""
    assert lives(generate, node)


def test_a_queue_that_cannot_be_consumed(generate: GenerateTask, node: Worker) -> None:
    """A queue that is bound in another way is given up, with one line; the worker goes on."""
    generate.app.control.add_consumer(
        "celery.pidbox-like", exchange="celery.pidbox", exchange_type="direct", reply=True
    )
    generate.app.control.cancel_consumer("never-consumed", reply=True)
    assert lives(generate, node)


def test_a_long_list(generate: GenerateTask, node: Worker) -> None:
    """A long list of ids is revoked beside the worker's other work: the requests of it that run here, and all the others."""
    running = generate.delay(prompt="r", model="fake:20", max_tokens=5_000)
    next(iter(running.stream(timeout=WAIT_S)))
    ids = [running.id, *(uuid.uuid4().hex for _ in range(IDS_AT_ONCE * 2))]
    assert ask(generate, node, "revoke", task_id=ids, terminate=True) == {"ok": f"{len(ids)} tasks flagged as revoked"}
    assert list(running.stream(timeout=WAIT_S))[-1].finish_reason == "cancelled"
    wait_until(lambda: generate.AsyncResult(ids[-1]).state == "REVOKED", timeout_s=WAIT_S)
    assert lives(generate, node)


@pytest.mark.parametrize(
    ("command", "says"), [("drain", "draining"), ("resume", "online"), (f"pin_model {MODEL}", "ready")]
)
def test_typed(node: Worker, command: str, says: str) -> None:
    """Our commands can be typed behind ``celery -A tasks control``, as docs/api.md has it."""
    typed = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "tasks",
        "control",
        "-d",
        node.node,
        "-t",
        "60",
        "--json",
        *command.split(),
    ]
    done = subprocess.run(typed, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    ((answer,),) = [reply.values() for reply in json.loads(done.stdout)]
    assert says in answer["ok"]


@pytest.mark.parametrize("command", ["drain", "resume", "shutdown"])
def test_a_worker_that_is_typed_without_its_option(command: str) -> None:
    """Celery passes over it, and the command would reach every worker: it is refused before anything is sent."""
    typed = [sys.executable, "-m", "celery", "-A", "tasks", "control", command, "mac-1@here"]
    env = environment_with(REDIS_URL="redis://127.0.0.1:1/0")
    done = subprocess.run(typed, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert f"Command '{command}' takes arguments: none; name a worker by -d NODE" in done.stderr
