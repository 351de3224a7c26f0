"""What is no request: dropped with one clear error, to whoever can be told, while the worker serves the others.

``TEST_EXAMPLES=10000`` draws that many malformed messages instead of some hundreds.
"""

from __future__ import annotations

import base64
import json
import uuid
import zlib
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tasks.broker.message.message import MAX_BODY_BYTES, MAX_MESSAGE_BYTES
from tasks.engine.fake import fake_text
from tasks.errors import InvalidRequest
from tasks.server import keys
from tests.garbage import EXAMPLES, JSON, mutated
from tests.support import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis
    from celery import Celery

    from tasks.generate import GenerateTask
    from tests.conftest import StartWorker
    from tests.support import Worker

pytestmark = pytest.mark.xdist_group("malformed")
WAIT_S = 60.0
QUEUE = "tier-under-3B"
MODEL = "fake:1"
SECRET = "geheimnis"
REQUEST = [[], {"prompt": SECRET, "model": MODEL, "max_tokens": 1}, {}]
DEEP = "[" * 50_000 + "]" * 50_000


def nested(levels: int) -> Any:
    """A value that has so many levels, which JSON takes and what comes after it may not."""
    value: Any = SECRET
    for _ in range(levels):
        value = {"a": [value]}
    return value


#: Wrong headers of a request.
HEADERS: list[dict[str, Any]] = [
    {"eta": 5},
    {"eta": "yesterday"},
    {"eta": "0001-01-01T00:00:00+14:00"},
    {"expires": []},
    {"expires": "9999-12-31T23:59:59-14:00"},
    {"timelimit": "abc"},
    {"timelimit": ["a", "b"]},
    {"timelimit": [1e300, 1]},
    {"timelimit": [1]},
    {"retries": "many"},
    {"ignore_result": 132.0},
    {"group": {}},
    {"root_id": 7},
    {"parent_id": []},
    {"shadow": {}},
    {"argsrepr": 1},
    {"kwargsrepr": []},
    {"stamps": 1},
    {"stamped_headers": [[]]},
    {"stamped_headers": 5},
    {"task": "tasks.genrate"},
    {"task": None},
    {"task": []},
    {"task": {}},
    {"compression": "zip-of-mine"},
    {"stamps": nested(200)},
    {"origin": nested(200)},
]
#: Wrong bodies of a request.
FOLLOWERS: list[Any] = [5, [5], [{}], {}]
BODIES: list[Any] = [
    None,
    5,
    "text",
    {},
    [],
    [1, 2],
    [[], {}, {}, {}],
    [{}, {}, {}],
    [[], [], {}],
    [["a", "b"], {"prompt": SECRET}, {}],
    [None, None, None],
    [[], {"prompt": SECRET}, []],
    *([[], REQUEST[1], {name: value}] for name in ("callbacks", "errbacks", "chain") for value in FOLLOWERS),
    [[], REQUEST[1], {"chord": 5}],
    [[], REQUEST[1], {"chain": [{"task": "x", "options": 5}]}],
    *([[], {"prompt": SECRET, "metadata": nested(levels)}, {}] for levels in (100, 400)),
    [[nested(200)], REQUEST[1], {}],
    [[], REQUEST[1], {"chain": [{"task": "tasks.generate", "kwargs": {"metadata": nested(200)}}]}],
]


def envelope(task_id: Any, body: Any = REQUEST, **headers: Any) -> dict[str, Any]:
    """A message as Celery and kombu queue it."""
    return {
        "body": base64.b64encode(json.dumps(body).encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": "tasks.generate", "id": task_id, **headers},
        "properties": {
            "correlation_id": task_id,
            "body_encoding": "base64",
            "priority": 0,
            "delivery_tag": str(uuid.uuid4()),
            "delivery_info": {"exchange": "", "routing_key": QUEUE},
        },
    }


def with_an_id() -> dict[str, dict[str, Any]]:
    """Malformed messages whose senders can be told, by their ids."""
    found: dict[str, dict[str, Any]] = {}

    def add(message: dict[str, Any]) -> None:
        found[message["headers"]["id"]] = message

    for headers in HEADERS:
        add(envelope(str(uuid.uuid4()), **headers))
    for body in BODIES:
        add(envelope(str(uuid.uuid4()), body))
    whole: list[dict[str, Any]] = [
        {"body": "!!!"},
        {"body": 5},
        {"body": []},
        {"body": base64.b64encode(b"\xff\xfe").decode()},
        {"body": base64.b64encode(DEEP.encode()).decode()},
        {"body": base64.b64encode(b"{" * 100).decode()},
        {"content-type": "application/x-python-serialize"},
        {"content-type": 5},
        {"properties": None},
        {"properties": {}},
        {"properties": []},
        {"properties": {"delivery_tag": "t"}},
        {"properties": {"delivery_tag": "t", "delivery_info": 5, "body_encoding": "base64"}},
        {"properties": {"delivery_tag": {}, "delivery_info": {"exchange": "", "routing_key": QUEUE}}},
    ]
    for changes in whole:
        add({**envelope(str(uuid.uuid4())), **changes})
    packed = base64.b64encode(zlib.compress(b" " * (MAX_BODY_BYTES + 1))).decode()
    add({**envelope(str(uuid.uuid4()), compression="gzip"), "body": packed})
    add({**envelope(str(uuid.uuid4())), "body": "x" * MAX_MESSAGE_BYTES})
    return found


def without_an_id() -> list[str]:
    """Malformed messages that nobody can be told of."""
    no_headers: list[Any] = [None, [], 5, "text", {}]
    ids: list[Any] = [None, "", 5, [], {}, "x" * 100_000]
    return [
        *("", "nonsense", "{", "null", "5", "[]", '"text"', "{}", DEEP, '{"headers": 5}', '{"headers": {}}', "\x00"),
        '{"__type__": "datetime", "__value__": 5}',
        '{"properties": {"__type__": "uuid", "__value__": []}}',
        *(json.dumps({**envelope("x"), "headers": headers}) for headers in no_headers),
        *(json.dumps(envelope(id_)) for id_ in ids),
        # Another task of Celery's own: kombu takes the KeyError of a missing id for a lost connection.
        json.dumps({**envelope("x"), "headers": {"task": "celery.backend_cleanup", "lang": "py"}}),
        json.dumps({"body": "x" * 20_000_000}),
    ]


@pytest.fixture(scope="module")
def generate(shared_app: Celery) -> GenerateTask:
    from tasks import generate

    return generate


@pytest.fixture(scope="module")
def node(shared_worker: StartWorker) -> Worker:
    """A worker that logs all it can."""
    return shared_worker("-c", "4", "-Q", QUEUE, "-l", "DEBUG", env={"CELERY_MLX_MODELS": MODEL})


def serves(generate: GenerateTask, prompt: str) -> bool:
    """Whether a good request is answered."""
    result = generate.delay(prompt=prompt, model=MODEL, max_tokens=3)
    return bool(result.get(timeout=WAIT_S)["text"] == fake_text(prompt, None, 3))


def holds_nothing(client: redis.Redis) -> bool:
    """Whether no message is queued, and none is held by any worker."""
    return not client.llen(QUEUE) and not list(client.scan_iter(f"{keys.unacked('*')}"))


def error_of(read: Callable[[], object]) -> str:
    """What the error says that ends this; nothing if it is answered."""
    try:
        read()
    except InvalidRequest as error:
        return str(error)
    return ""


def test_who_can_be_told_is_told_once(generate: GenerateTask, node: Worker, shared_redis: redis.Redis) -> None:
    """Each malformed message with an id ends its stream and its result with one error; good ones between are served."""
    sent = with_an_id()
    for number, message in enumerate(sent.values()):
        shared_redis.lpush(QUEUE, json.dumps(message))
        if number % 10 == 0:
            assert serves(generate, f"between {number}")
    for task_id, message in sent.items():
        result = generate.AsyncResult(task_id)
        said = [error_of(partial(list, result.stream(timeout=WAIT_S))), error_of(partial(result.get, timeout=WAIT_S))]
        assert said[0], f"no error for {message!s:.500}"
        assert said[0] == said[1]
        assert "\n" not in said[0]
        assert SECRET not in said[0]
    wait_until(lambda: holds_nothing(shared_redis), about="an end of all messages")
    assert node.process.poll() is None
    log = node.log()
    assert {task_id: log.count(f"{task_id!r} was dropped") for task_id in sent} == dict.fromkeys(sent, 1)
    assert SECRET not in log
    assert "Traceback" not in log
    assert "RecursionError" not in log
    assert "Connection to broker lost" not in log
    for bound in (MAX_BODY_BYTES, MAX_MESSAGE_BYTES):
        assert f"{bound} " in log


def test_who_cannot_be_told(generate: GenerateTask, node: Worker, shared_redis: redis.Redis) -> None:
    """What has no id is dropped with one line, and the good ones between are served."""
    before = node.log().count("without an id was dropped")
    sent = without_an_id()
    for number, text in enumerate(sent):
        shared_redis.lpush(QUEUE, text)
        if number % 10 == 0:
            assert serves(generate, f"among {number}")
    shared_redis.lpush(QUEUE, b"\xff\xfe\x00")
    shared_redis.lpush(QUEUE, b"=\xff", b"=", b"=nobody")  # references to nothing
    wait_until(lambda: holds_nothing(shared_redis), about="an end of all messages")
    wait_until(lambda: node.log().count("without an id was dropped") == before + len(sent) + 1)
    assert serves(generate, "after")
    assert node.process.poll() is None
    assert "Connection to broker lost" not in node.log()


def test_a_running_request_is_not_disturbed(generate: GenerateTask, node: Worker, shared_redis: redis.Redis) -> None:
    """A malformed message with the id of a request that runs, or has ended, changes neither its stream nor its result."""
    running = generate.delay(prompt="long", model="fake:20", max_tokens=50)
    stream = running.stream(timeout=WAIT_S)
    text = next(stream).text
    shared_redis.lpush(QUEUE, json.dumps(envelope(running.id, [5])))
    wait_until(lambda: f"{running.id!r} was dropped" in node.log())
    text += "".join(chunk.text for chunk in stream)
    assert text == running.get(timeout=WAIT_S)["text"] == fake_text("long", None, 50)
    shared_redis.lpush(QUEUE, json.dumps(envelope(running.id, [5])))
    wait_until(lambda: node.log().count(f"{running.id!r} was dropped") == 2)
    assert generate.AsyncResult(running.id).get(timeout=WAIT_S)["text"] == text


BATCH = 50
#: What fails is not made smaller: each try would wait for its time to be up.
PLENTY = settings(
    max_examples=max(1, EXAMPLES // BATCH), phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)


@PLENTY
@given(st.lists(mutated(envelope("")), min_size=BATCH, max_size=BATCH))
def test_whatever_comes(
    generate: GenerateTask, node: Worker, shared_redis: redis.Redis, drawn: list[dict[str, Any]]
) -> None:
    """Messages with anything in any of their places leave the worker as it was, and end for whoever waits for them."""
    ids = {}
    for message in drawn:
        headers = message.get("headers")
        if isinstance(headers, dict) and headers.get("id") == "":
            headers["id"] = str(uuid.uuid4())
            ids[headers["id"]] = message
        properties = message.get("properties")
        if isinstance(properties, dict) and isinstance(properties.get("delivery_tag"), str):
            properties["delivery_tag"] = str(uuid.uuid4())
        shared_redis.lpush(QUEUE, json.dumps(message))
    assert serves(generate, "among them")
    wait_until(lambda: holds_nothing(shared_redis), timeout_s=WAIT_S, about="an end of all messages")
    left = [message for task_id, message in ids.items() if not ended(shared_redis, task_id)]
    assert not left, "\n".join(map(str, left))
    assert node.process.poll() is None


@PLENTY
@given(
    st.lists(
        st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()), min_size=BATCH, max_size=BATCH
    )
)
def test_whatever_bytes_come(
    generate: GenerateTask, node: Worker, shared_redis: redis.Redis, drawn: list[bytes]
) -> None:
    """Bytes and JSON of all kinds leave the worker as it was."""
    shared_redis.lpush(QUEUE, *drawn)
    assert serves(generate, "after them")
    wait_until(lambda: holds_nothing(shared_redis), timeout_s=WAIT_S, about="an end of all messages")
    assert node.process.poll() is None


def ended(client: redis.Redis, task_id: str) -> bool:
    """Whether the journal of this request has its end, and Celery its result."""
    last: Any = client.xrevrange(keys.stream(task_id), count=1)
    over = bool(last) and json.loads(last[0][1]["d"])["type"] in ("end", "error")
    return over and bool(client.exists(f"celery-task-meta-{task_id}"))
