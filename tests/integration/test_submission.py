"""Requests that are sent together: how many round trips they take, and that they are what a single request is."""

from __future__ import annotations

import base64
import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from celery import chord, group, signals
from redis.connection import Connection
from redis.exceptions import ConnectionError as RedisConnectionError

from tasks.broker.submission.pages import MOST_BYTES, MOST_REQUESTS, Refused
from tasks.broker.submission.submission import Submission
from tasks.errors import InvalidRequest, QueueFull
from tasks.server import keys
from tasks.server.connection import connect
from tests.fleet import waiting_messages
from tests.support import wait_until

if TYPE_CHECKING:
    import redis
    from celery import Celery

    from tasks.generate import GenerateTask

QUEUE = "tier-under-3B"


def members(generate: GenerateTask, count: int, prompt: str = "m") -> list[Any]:
    return [generate.s(prompt=f"{prompt}{n}", model="fake:1", max_tokens=1) for n in range(count)]


def sends(client: redis.Redis) -> int:
    """How often the server was sent something so far."""
    info: Any = client.info("stats")
    return int(info["total_reads_processed"])


def prompts(client: redis.Redis) -> list[str]:
    """The prompts in the queue, the oldest first."""
    bodies = [json.loads(base64.b64decode(message["body"])) for message in reversed(waiting_messages(client, QUEUE))]
    return [body[1]["prompt"] for body in bodies]


def test_round_trips(generate: GenerateTask, redis_client: redis.Redis) -> None:
    """A group of several hundred is sent in a few round trips, in its order, and each member is in the ledger."""
    count = 2 * MOST_REQUESTS + 1
    generate.delay(prompt="first", model="fake:1")
    before = sends(redis_client)
    result = group(members(generate, count)).apply_async()
    # Five pages, and a connection for each. A page is read in some 8 pieces, on a busy machine in 30; one by one each member
    # is read by itself.
    assert sends(redis_client) - before < count / 2
    assert prompts(redis_client) == ["first", *(f"m{n}" for n in range(count))]
    assert {member.id for member in result.results} < set(redis_client.hkeys(keys.LEDGER))


def test_long_members(generate: GenerateTask, redis_client: redis.Redis) -> None:
    """Members go out as soon as they are a page's bytes."""

    def drawn() -> Any:
        for n in range(3):
            # Celery draws one more than it sends.
            wait_until(lambda: redis_client.llen(QUEUE) == max(0, n - 1))  # noqa: B023
            yield generate.s(prompt=f"{n}" * MOST_BYTES, model="fake:1")

    group(drawn()).apply_async()
    assert redis_client.llen(QUEUE) == 3


def test_a_refusal_that_is_heard_later(generate: GenerateTask, redis_client: redis.Redis) -> None:
    """The replies to a page are read with the next one. Where they say no, both are none of the queue's."""
    redis_client.hset(keys.LIMITS, QUEUE, json.dumps({"bound": MOST_REQUESTS - 3, "per_s": 0.0}))
    with pytest.raises(
        QueueFull, match=rf"{MOST_REQUESTS - 3} of its group before it had been sent and were taken back"
    ):
        group(members(generate, 2 * MOST_REQUESTS + 1)).apply_async()
    assert redis_client.llen(QUEUE) == redis_client.hlen(keys.LEDGER) == 0


def test_an_error_behind_a_page(generate: GenerateTask, redis_client: redis.Redis) -> None:
    """A wrong member behind a page that is under way takes that back."""
    wrong = generate.s(prompt="", model="fake:1")
    with pytest.raises(
        InvalidRequest, match=rf"{MOST_REQUESTS} of its group before it had been sent and were taken back"
    ):
        group([*members(generate, MOST_REQUESTS + 1), wrong]).apply_async()
    assert redis_client.llen(QUEUE) == redis_client.hlen(keys.LEDGER) == 0


@pytest.mark.parametrize("method", ["send_packed_command", "read_response"])
def test_a_connection_that_breaks(
    generate: GenerateTask, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """A page that is under way on it is sent again."""
    submission = Submission(generate.app)
    for number in range(3):
        headers = {"id": f"t{number}", "task": generate.name}
        submission.add([[], {"prompt": f"m{number}"}, {}], headers, {}, QUEUE)
    with closing(connect(generate.app)) as client:
        client.ping()
        with monkeypatch.context() as broken:
            broken.setattr(Connection, method, breaks(getattr(Connection, method)))
            submission.begin(client)
            submission.send(client)
        assert client.ping()
    assert sorted(redis_client.hkeys(keys.LEDGER)) == ["t0", "t1", "t2"]


def breaks(method: Any) -> Any:
    """The method of a connection, which fails at its first call."""
    calls: list[Any] = []

    def called(self: Any, *args: Any, **options: Any) -> Any:
        calls.append(args)
        if len(calls) == 1:
            raise RedisConnectionError("broken")
        return method(self, *args, **options)

    return called


def test_a_request_alone(generate: GenerateTask, redis_client: redis.Redis) -> None:
    """``delay`` sends once, and waits for one reply."""
    generate.delay(prompt="the connection", model="fake:1")
    before = sends(redis_client)
    for number in range(10):
        generate.delay(prompt=str(number), model="fake:1")
    # What counts is one more. On a busy machine looks at the fleet fall among them, too; a second trip each would be ten.
    assert 10 + 1 <= sends(redis_client) - before < 10 + 10


def test_the_same_message(generate: GenerateTask, redis_client: redis.Redis) -> None:
    """What a group sends has the fields and the values of what ``apply_async`` sends, but for its ids."""
    options: dict[str, Any] = {"priority": 9, "expires": 60, "headers": {"mine": "1"}, "time_limit": 5}
    generate.apply_async(kwargs={"prompt": "m0", "model": "fake:1", "max_tokens": 1}, **options)
    group([members(generate, 1)[0].set(**options)]).apply_async()
    together, alone = waiting_messages(redis_client, f"{QUEUE}\x06\x169")
    assert together["body"] == alone["body"]
    assert {name: value for name, value in together.items() if name not in ("headers", "properties")} == {
        name: value for name, value in alone.items() if name not in ("headers", "properties")
    }
    own = {"id", "root_id", "group", "group_index", "expires", "correlation_id", "delivery_tag", "reply_to"}
    for part in ("headers", "properties"):
        assert together[part].keys() == alone[part].keys()
        assert {key: value for key, value in together[part].items() if key not in own and key != "expiration"} == {
            key: value for key, value in alone[part].items() if key not in own and key != "expiration"
        }


def test_the_message_that_celery_writes(generate: GenerateTask, redis_client: redis.Redis) -> None:
    """``delay`` goes by Celery where somebody listens to its signals, and writes the same message where nobody does."""
    follower = generate.s(prompt="then", model="fake:1")
    options: dict[str, Any] = {
        "priority": 5,
        "soft_time_limit": 3,
        "time_limit": 5,
        "shadow": "mine",
        "ignore_result": True,
    }
    kwargs = {"prompt": "m", "model": "fake:1", "logit_bias": {7: 1.0}}

    def send() -> None:
        generate.apply_async(kwargs=kwargs, link=follower, link_error=[follower], **options)

    def listen(**_: Any) -> None: ...

    signals.before_task_publish.connect(listen)
    try:
        send()
    finally:
        signals.before_task_publish.disconnect(listen)
    send()
    direct, celerys = waiting_messages(redis_client, f"{QUEUE}\x06\x165")
    # Celery writes the redacted arguments twice.
    copies = {"argsrepr", "kwargsrepr"}
    for message, own in (direct, set()), (celerys, copies):
        assert copies < message["headers"].keys()
        for name in ("id", "root_id"):
            del message["headers"][name]
        for name in ("correlation_id", "delivery_tag", *own):
            del message["properties"][name]
    assert direct == celerys


def test_who_sends(generate: GenerateTask) -> None:
    """Options that are more than headers, a task's own requests and replaced methods leave it to Celery to send."""
    given: tuple[Any, ...] = ([], {"prompt": "m", "model": "fake:1"}, None, None, None, None)
    assert generate.direct.send(given, {"priority": 9})
    for options in ({"countdown": 1}, {"headers": {"mine": 1}}, {"expires": 60}, {"compression": "gzip"}):
        assert generate.direct.send(given, options) is None
    sends = generate.app.send_task
    generate.app.send_task = sends  # as a tracer would
    try:
        assert generate.direct.send(given, {}) is None
    finally:
        del generate.app.send_task


def test_refused_in_the_middle(generate: GenerateTask, redis_client: redis.Redis) -> None:
    """Of requests that one script queues, those before the queue's bound are in it, and the others are named."""
    queue_limit = {"bound": 3, "per_s": 0.0}
    redis_client.hset(keys.LIMITS, QUEUE, json.dumps(queue_limit))
    submission = Submission(generate.app)
    for number in range(5):
        headers = {"id": f"t{number}", "task": generate.name}
        submission.add([[], {"prompt": f"m{number}"}, {}], headers, {}, QUEUE)
    with pytest.raises(Refused) as refused:
        submission.send()
    assert (refused.value.unsent, prompts(redis_client)) == (["t3", "t4"], ["m0", "m1", "m2"])
    assert "3 requests wait" in str(refused.value.error)


@pytest.mark.parametrize("kind", ["group", "chord", "group in a group"])
def test_one_id_twice(generate: GenerateTask, redis_client: redis.Redis, kind: str) -> None:
    """Two members with one id are refused, and nothing of their group is sent: a chord would wait for the second one for ever."""
    first, second, third = (
        member.set(task_id=task_id) for member, task_id in zip(members(generate, 3), "aba", strict=True)
    )
    canvas = {
        "group": lambda: group([first, second, third]).apply_async(),
        "chord": lambda: chord([first, second, third])(generate.s(prompt="all")),
        "group in a group": lambda: group([first, group([second, generate.s(prompt="x"), third])]).apply_async(),
    }
    with pytest.raises(
        InvalidRequest, match=r"task_id='a': twice in one group: leave it out.*nothing of its group was sent"
    ):
        canvas[kind]()
    assert not redis_client.llen(QUEUE)


def test_a_group_that_is_sent_again(generate: GenerateTask, redis_client: redis.Redis) -> None:
    """It is the same requests, which are queued once more and computed once."""
    again = group(members(generate, 2))
    again.freeze()
    ids = [[member.id for member in again.apply_async().results] for _ in range(2)]
    assert ids[0] == ids[1]
    assert redis_client.hlen(keys.LEDGER) == 2


def test_signals(generate: GenerateTask) -> None:
    """Whoever instruments Celery hears of each member."""
    heard: list[str] = []

    def note(headers: dict[str, Any], **_: Any) -> None:
        heard.append(headers["id"])

    signals.before_task_publish.connect(note)
    try:
        result = group(members(generate, 3)).apply_async()
    finally:
        signals.before_task_publish.disconnect(note)
    assert heard == [member.id for member in result.results]


def test_a_producer_of_ones_own(generate: GenerateTask, redis_client: redis.Redis, producer_app: Celery) -> None:
    """With a producer of the pool that the caller has taken, a group goes out when the caller gives it back."""
    with producer_app.producer_pool.acquire(block=True) as producer:
        group(members(generate, 2)).apply_async(producer=producer)
        generate.apply_async(kwargs={"prompt": "single", "model": "fake:1"}, producer=producer)
        assert prompts(redis_client) == ["single"]
    assert prompts(redis_client) == ["single", "m0", "m1"]


@pytest.mark.parametrize("count", [1, 3])
def test_the_pool_is_whole(generate: GenerateTask, redis_client: redis.Redis, producer_app: Celery, count: int) -> None:
    """Groups after one another use the same producers, and none is sent twice."""
    for _ in range(count):
        group(members(generate, 2)).apply_async()
    assert redis_client.llen(QUEUE) == 2 * count
    assert not producer_app.producer_pool._dirty
