"""Members of a group that differ in their prompts alone: most of them are checked and built by the one before."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
from celery import group

from tasks.client.sending.request import prepare
from tasks.errors import InvalidRequest
from tasks.server import keys
from tests.fleet import waiting_messages

if TYPE_CHECKING:
    import redis
    from celery import Celery

    from tasks.generate import GenerateTask

QUEUE = "tier-under-3B"
FIRST, SECOND = "say one", "sagt zwei \u2028 ü"


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The keywords of the requests that were checked as a whole, in order."""
    found: list[Any] = []

    def noted(args: Any, kwargs: Any, *more: Any) -> Any:
        found.append(kwargs)
        return prepare(args, kwargs, *more)

    monkeypatch.setattr("tasks.client.submitter.prepare", noted)
    return found


def queued(client: redis.Redis, name: str) -> list[tuple[Any, Any, int]]:
    """Of each request in a list, the oldest first: its message without ids, its fingerprint, and its place in its group."""
    found = []
    for message in reversed(waiting_messages(client, name)):
        headers, properties = message["headers"], message["properties"]
        message["body"] = json.loads(base64.b64decode(message["body"]))
        task_id, place = headers.pop("id"), headers.pop("group_index")
        assert properties.pop("correlation_id") == headers.pop("root_id") == task_id
        assert properties.pop("delivery_tag")
        assert headers.pop("group")
        found.append((message, client.get(keys.request(task_id)), place))
    return found


@pytest.mark.parametrize(
    "asked",
    [
        [{"prompt": FIRST}, {"prompt": SECOND}],
        [
            {"messages": [{"role": "user", "content": FIRST}]},
            {
                "messages": [
                    {"role": "system", "content": SECOND * 40},
                    {"role": "user", "content": SECOND, "name": None},
                ]
            },
        ],
    ],
    ids=["prompts", "messages"],
)
@pytest.mark.parametrize(
    "options", [{}, {"priority": 9, "ignore_result": True, "shadow": "mine", "time_limit": 5}], ids=["plain", "options"]
)
def test_the_message_that_each_would_have_alone(
    generate: GenerateTask,
    redis_client: redis.Redis,
    checked: list[Any],
    asked: list[dict[str, Any]],
    options: dict[str, Any],
) -> None:
    """In all but ids and the place in the group; the first is checked as a whole, and of the second its prompt."""
    members = [{**values, "max_completion_tokens": 3, "temperature": 0, "n": 1} for values in asked]
    result = group(generate.s(**values) for values in members).apply_async(**options)
    assert len(checked) == 1
    for values in members:
        group([generate.s(**values)]).apply_async(**options)
    assert len(checked) == 3
    found = queued(redis_client, QUEUE if not options else f"{QUEUE}\x06\x169")
    assert [place for *_, place in found] == [0, 1, 0, 0]
    assert [entry[:2] for entry in found[:2]] == [entry[:2] for entry in found[2:]]
    assert found[1][1] != found[0][1]
    assert len({member.id for member in result.results}) == 2


@pytest.mark.parametrize(
    "other",
    [
        {"max_tokens": 2},
        {"seed": 1.0},
        {"temperature": 0.5},
        {"stop": ["x"]},
        {"prompt": None, "messages": [{"role": "user", "content": "m"}]},
    ],
    ids=",".join,
)
def test_another_member(
    generate: GenerateTask, redis_client: redis.Redis, checked: list[Any], other: dict[str, Any]
) -> None:
    """One with another parameter, or with the same of another type, is checked as a whole, as is the one behind it."""
    values = {"prompt": FIRST, "model": "fake:1", "max_tokens": 1, "seed": 1}
    group([generate.s(**values), generate.s(**{**values, **other}), generate.s(**values)]).apply_async()
    assert len(checked) == 3
    bodies = [message["body"][1] for message, *_ in queued(redis_client, QUEUE)]
    sent = {name: value for name, value in {**values, **other}.items() if value is not None}
    assert bodies == [values, sent, values]


def test_the_same_values_of_other_parameters(
    generate: GenerateTask, redis_client: redis.Redis, checked: list[Any]
) -> None:
    """Values belong to their names, in whatever order those are."""
    asked: list[dict[str, Any]] = [
        {"prompt": FIRST, "model": "fake:1", "max_tokens": 3, "top_k": 1},
        {"prompt": FIRST, "model": "fake:1", "top_k": 3, "max_tokens": 1},
        {"max_tokens": 1, "prompt": SECOND, "top_k": 3, "model": "fake:1"},
    ]
    group([generate.s(**values) for values in asked]).apply_async()
    assert [message["body"][1] for message, *_ in queued(redis_client, QUEUE)] == asked
    assert len(checked) == 2


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"prompt": ""}, r"prompt='' is empty: give some text"),
        ({"prompt": "\udc80"}, r"the prompt has '\\udc80', one half of a character, at 0: send whole text"),
        ({"max_tokens": True}, r"max_tokens=True: input should be a number; use 1 or more"),
        ({"prompt": [object()]}, r"prompt: object is not plain data: use text"),
        ({"seed": float("nan")}, r"seed=nan"),
        ({"prompts": "x"}, r"prompts=<str>: unknown field; did you mean prompt"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_member(generate: GenerateTask, redis_client: redis.Redis, wrong: dict[str, Any], error: str) -> None:
    """It is refused as it is alone, and nothing of its group is sent."""
    values = {"prompt": FIRST, "model": "fake:1", "max_tokens": 1, "seed": 1}
    with pytest.raises(InvalidRequest, match=error):
        generate.delay(**{**values, **wrong})
    with pytest.raises(InvalidRequest, match=error + r".*nothing of its group was sent"):
        group([generate.s(**values), unchecked(generate, {**values, **wrong})]).apply_async()
    assert not redis_client.llen(QUEUE)


def unchecked(generate: GenerateTask, values: dict[str, Any]) -> Any:
    """A signature whose keywords were set later."""
    signature = generate.s()
    signature["kwargs"] = values
    return signature


def test_another_router(
    generate: GenerateTask,
    redis_client: redis.Redis,
    checked: list[Any],
    producer_app: Celery,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where an application has a router of its own, which may look at anything, each member is routed by itself."""
    seen: list[Any] = []

    def by_prompt(name: str, args: Any, kwargs: Any, options: Any, **_: Any) -> dict[str, str]:
        seen.append(kwargs["prompt"])
        return {"queue": QUEUE}

    monkeypatch.setattr(producer_app.amqp.router, "routes", [by_prompt])
    group(generate.s(prompt=f"m{n}", model="fake:1") for n in range(3)).apply_async()
    assert seen == ["m0", "m1", "m2"]
    assert len(checked) == redis_client.llen(QUEUE) == 3
