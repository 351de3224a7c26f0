"""Celery's options: what would be passed over without a word is refused."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from kombu import Queue

from tasks.client.request.options import checked, checked_id
from tasks.client.request.parameters import Parameters, check
from tasks.client.sending.fleet_view import FleetView
from tasks.client.sending.request import prepare, require_room
from tasks.errors import ContextExceeded, InvalidRequest


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def refused(**options: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        checked(options, Parameters.model_fields)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"max_tokens": 3}, "max_tokens: a parameter and not an option: use delay(max_tokens=…)"),
        ({"messages": []}, "messages: a parameter and not an option: use delay(messages=…)"),
        ({"timelimit": 5}, "timelimit: unknown option; did you mean time_limit?"),
        ({"zzz": 5}, "zzz: unknown option; leave it out; the options are add_to_parent,"),
        ({"priority": "low"}, "priority='low': use 0 (the most urgent, the default), 5, or 9"),
        ({"priority": 10}, "priority=10: use 0"),
        ({"priority": -1}, "priority=-1: use 0"),
        ({"priority": 5.5}, "priority=5.5: use 0"),
        ({"priority": True}, "priority=True: use 0"),
        ({"countdown": "5"}, "countdown='5': use a number of seconds"),
        ({"countdown": -5}, "countdown=-5: use a number of seconds"),
        ({"countdown": math.nan}, "countdown=nan: use a number of seconds"),
        ({"countdown": math.inf}, "countdown=inf: use a number of seconds"),
        ({"countdown": 10**400}, "countdown=<int>: use a number of seconds"),
        ({"countdown": timedelta(seconds=5)}, "countdown=datetime.timedelta(seconds=5): use a number of seconds"),
        ({"eta": "tomorrow"}, "eta='tomorrow': use a datetime"),
        ({"eta": 5}, "eta=5: use a datetime"),
        ({"eta": date(2030, 1, 1)}, "eta=datetime.date(2030, 1, 1): use a datetime"),
        ({"eta": datetime(1, 1, 1, tzinfo=UTC)}, "eta=datetime.datetime(1, 1, 1"),
        ({"countdown": 5, "eta": datetime(2030, 1, 1, tzinfo=UTC)}, "both countdown and eta are set: give one of them"),
        ({"expires": 0}, "expires=0: use a number of seconds above 0"),
        ({"expires": "soon"}, "expires='soon': use a number of seconds above 0"),
        ({"time_limit": 0}, "time_limit=0: use a number of seconds above 0"),
        ({"soft_time_limit": "5"}, "soft_time_limit='5': use a number of seconds above 0"),
        ({"soft_time_limit": 6, "time_limit": 5}, "soft_time_limit=6 is more than time_limit=5: give a smaller one"),
        ({"ignore_result": "no"}, "ignore_result='no': use True or False"),
        ({"serializer": "pickle"}, "serializer='pickle': use json"),
        ({"headers": [1]}, "headers=[1]: give a dictionary"),
        ({"headers": {"who": object()}}, "headers={'who': <object object at"),
        ({"headers": {"deep": nested(3000)}}, "headers=<dict>: give a dictionary"),
        (
            {"headers": {"id": "mine"}},
            "headers: id is one of Celery's own, by which a message is known: name yours diff",
        ),
        ({"queue": ""}, "queue='': use the name of a queue"),
        ({"queue": 5}, "queue=5: use the name of a queue"),
        ({"queue": "tier\ud800"}, "queue='tier\\ud800': use the name of a queue"),
        ({"queue": Queue("a\nb")}, "queue=<unbound Queue a"),
        ({"exchange": "mine"}, "exchange='mine': leave it out, and say queue=…"),
        ({"routing_key": "tier-3-7B"}, "routing_key='tier-3-7B': leave it out, and say queue=…"),
        ({"compression": "zstd"}, "compression='zstd': use gzip, bzip2 or lzma"),
        ({"compression": ["gzip"]}, "compression=['gzip']: use gzip"),
        ({"delivery_mode": "twice"}, "delivery_mode='twice': leave it out"),
        ({"retry": 5}, "retry=5: use True or False"),
        ({"retry_policy": 5}, "retry_policy=5: give a dictionary"),
        ({"retry_policy": {"retries": 3}}, "retry_policy={'retries': 3}: give a dictionary of max_retries,"),
        ({"retry_policy": {"interval_start": "1"}}, "retry_policy={'interval_start': '1'}: give a dictionary of"),
        ({"expiration": "soon"}, "expiration='soon': use expires=…"),
        ({"stamped_headers": "team"}, "stamped_headers='team': give a list"),
        ({"stamped_headers": ["team"]}, "stamped_headers has 'team': give its value beside it"),
        ({"stamped_headers": ["team"], "team": object()}, "team=<object object at"),
        ({"shadow": 5}, "shadow=5: give a text"),
        ({"chord": 5}, "chord=5: give the signature that follows the group"),
        ({"chord": {"task": None}}, "chord={'task': None}: give the signature"),
        ({"chain": "next"}, "chain='next': give a list of signatures"),
        ({"chain": [5]}, "chain=[5]: give a list of signatures"),
        ({"connection": 5}, "connection=5: give one as app.connection_for_write() makes it"),
        ({"producer": "mine"}, "producer='mine': give one as app.producer_pool.acquire() gives it"),
        ({"publisher": 5}, "publisher=5: give one"),
        ({"add_to_parent": "no"}, "add_to_parent='no': use True or False"),
        ({"reply_to": 5}, "reply_to=5: give a text"),
        ({"group_id": ["a"]}, "group_id=['a']: give a text"),
        ({"retries": "3"}, "retries='3': leave it out"),
        ({"declare": 5}, "declare=5: leave it out"),
        ({"confirm_timeout": "soon"}, "confirm_timeout='soon': use a number of seconds"),
        ({"exchange_type": "topic"}, "exchange_type='topic': leave it out"),
        ({"router": 5}, "router=5: leave it out"),
        ({"result_cls": 5}, "result_cls=5: leave it out"),
    ],
)
def test_refused(option: dict[str, Any], said: str) -> None:
    """An option that nobody looks at, and a value that nobody could use, is one error with the remedy."""
    assert refused(**option).startswith(said)


def test_taken() -> None:
    """Celery's own options pass, with the numbers of other libraries as Python's; stamps may have any name."""
    options = {"countdown": 0, "expires": datetime(2030, 1, 1, tzinfo=UTC), "priority": 9, "queue": None, "link": []}
    assert checked(options, Parameters.model_fields) == options
    assert checked({"eta": "2030-01-31T12:00:00+00:00"}, ())
    assert checked({"stamped_headers": ["zzz"], "zzz": 5}, ())
    assert checked({"retry_policy": {"max_retries": None, "interval_start": 0.2, "errback": print}}, ())
    assert checked(
        {"compression": "bzip2", "headers": {"at": datetime(2030, 1, 1, tzinfo=UTC)}, "queue": Queue("q")}, ()
    )
    found = checked({"priority": np.int64(5), "countdown": np.float32(0.5)}, ())
    assert found == {"priority": 5, "countdown": 0.5}
    assert [type(value) for value in found.values()] == [int, float]


class TestId:
    @pytest.mark.parametrize(
        "task_id",
        ["a", "x" * 256, "with space", "{}", "*", "a/b:c#d", "ünïcode-日本語-🙂", "-n", "%s%n", "'\"", "[ab]?", "\\"],
    )
    def test_taken(self, task_id: str) -> None:
        """Any printable text is an id."""
        assert checked_id(task_id) == task_id

    def test_a_uuid(self) -> None:
        """A UUID is taken as its text; ``None`` leaves the choice to Celery."""
        assert checked_id(UUID(int=5)) == "00000000-0000-0000-0000-000000000005"
        assert checked_id(None) is None

    @pytest.mark.parametrize("task_id", ["", "x" * 257, "a\nb", "a\tb", "\x00", "\x1b[31m", "\ud800", 5, b"x", 1.5])
    def test_refused(self, task_id: Any) -> None:
        """What would break a line of a log, or a key, is refused with what to use."""
        with pytest.raises(InvalidRequest, match=r"task_id=.*: use text of 1 to 256 printable characters") as caught:
            checked_id(task_id)
        assert "\n" not in str(caught.value)


class TestArguments:
    @pytest.mark.parametrize(
        ("args", "kwargs", "said"),
        [
            ("text", None, "the first argument is a str: use delay(…) with the parameters by keyword"),
            ({"prompt": "x"}, None, "the first argument is a dict: use delay(…) with the parameters by keyword"),
            (None, [("prompt", "x")], "kwargs is a list: give a dictionary"),
            (["a", "b"], None, "2 positional arguments: at most one"),
        ],
    )
    def test_of_another_type(self, args: Any, kwargs: Any, said: str) -> None:
        """What Celery would take apart, or call missing, is named."""
        with pytest.raises(InvalidRequest) as caught:
            prepare(args, kwargs, None, {})
        assert str(caught.value).startswith(said)

    def test_what_is_sent(self) -> None:
        """What is sent is plain data, without what changes nothing, and with the previous answer beside it."""
        request = prepare(({"text": "Paris"},), {"prompt": "x", "n": 1, "seed": np.int64(5), "stop": None}, None, {})
        assert (request.args, request.kwargs) == ([{"text": "Paris"}], {"prompt": "x", "seed": 5})
        assert request.parameters.prompt == "xParis"

    def test_an_option_among_the_parameters(self) -> None:
        """An option that is given to ``delay`` is called one."""
        with pytest.raises(
            InvalidRequest, match=r"priority=5: an option and not a field of generate: use generate.apply_async"
        ):
            prepare(None, {"prompt": "x", "priority": 5}, None, {})


def test_an_answer_longer_than_the_context() -> None:
    """Refused where it is sent, before a worker has loaded the model for it; a model whose context nobody knows is not."""

    def require(model: str, max_tokens: int) -> None:
        require_room(check({"prompt": "a", "model": model, "max_tokens": max_tokens}, {}), FleetView(None))

    with pytest.raises(ContextExceeded) as caught:
        require("smollm2-135m", 8192)
    assert str(caught.value) == (
        "max_tokens=8192: smollm2-135m has a context of 8192 tokens, for the prompt and the answer together: ask for fewer"
    )
    require("smollm2-135m", 8191)
    require("mlx-community/some-1B", 10**9)
