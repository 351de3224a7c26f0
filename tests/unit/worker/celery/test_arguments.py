"""What control commands take, and what they are refused for."""

from __future__ import annotations

import re
from inspect import signature
from typing import Any

import pytest
from celery.worker.control import Panel

import tasks.worker.celery.control  # noqa: F401  (registers our commands)
from tasks.errors import InvalidRequest
from tasks.worker.celery.arguments import ARGUMENTS, MOST_IDS, REQUIRED, check, check_broadcast

#: Something of a wrong type for every kind of argument.
JUNK: list[Any] = [[[]], {"a": {}}, [{}], float("nan"), -1, "x" * 2_000, ["x"] * (MOST_IDS + 1)]
#: What people and programs send.
TAKEN: list[tuple[str, dict[str, Any]]] = [
    ("revoke", {"task_id": "a", "terminate": False, "signal": "SIGTERM"}),
    ("revoke", {"task_id": ["a"] * MOST_IDS, "terminate": True, "signal": None}),
    ("revoke", {"task_id": "a", "terminate": 1, "signal": "SIGTERM"}),  # Flower's button
    ("terminate", {"task_id": ["a"], "signal": 15}),
    ("revoke_by_stamped_headers", {"headers": {"tenant": ["a", "b"]}, "terminate": False, "signal": None}),
    ("revoke_by_stamped_headers", {"headers": ["tenant=a"]}),
    ("rate_limit", {"task_name": "tasks.generate", "rate_limit": "10/m"}),
    ("rate_limit", {"task_name": "tasks.generate", "rate_limit": 0}),
    ("time_limit", {"task_name": "tasks.generate", "soft": 10.5, "hard": None}),
    ("time_limit", {"task_name": "tasks.generate", "soft": 10, "hard": 10}),
    ("time_limit", {"task_name": "tasks.generate", "soft": 10, "hard": 0}),
    ("add_consumer", {"queue": "q", "exchange": None, "exchange_type": "direct", "routing_key": None}),
    ("cancel_consumer", {"queue": "q"}),
    ("query_task", {"ids": ["a", "b"]}),
    ("registered", {"taskinfoitems": []}),
    ("active", {"safe": None}),
    ("ping", {}),
    ("shutdown", {}),
    ("pin_model", {"name": "smollm2-135m"}),
]


@pytest.mark.parametrize(("command", "arguments"), TAKEN)
def test_taken(command: str, arguments: dict[str, Any]) -> None:
    """What Celery's own clients, Flower and this project send is taken."""
    check(command, arguments, Panel.data)


@pytest.mark.parametrize("command", ARGUMENTS)
def test_refused(command: str) -> None:
    """Every argument of every command refuses what is no value for it, and an argument that the command does not have."""
    good: dict[str, Any] = {name: "a=b" for name in ARGUMENTS[command] if name in REQUIRED}
    if "headers" in good:
        good["headers"] = [good["headers"]]
    check(command, good, Panel.data)
    for name in ARGUMENTS[command]:
        for value in JUNK:
            with pytest.raises(InvalidRequest, match=re.escape(f"{command}: {name} is ")):
                check(command, {**good, name: value}, Panel.data)
    with pytest.raises(InvalidRequest, match="has no argument 'prefetch'"):
        check(command, {**good, "prefetch": 5}, Panel.data)


@pytest.mark.parametrize("command", ARGUMENTS)
def test_what_a_command_needs(command: str) -> None:
    """No command is called without an argument that its function has no default for: Python's error would be the answer."""
    parameters = signature(Panel.data[command]).parameters.values()
    needed = {
        found.name for found in parameters if found.kind is found.POSITIONAL_OR_KEYWORD and found.default is found.empty
    }
    assert needed - {"state"} <= REQUIRED


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("revoke", {"task_id": ""}),
        ("revoke", {"task_id": "a", "terminate": True, "signal": "SIGHOPE"}),
        ("revoke", {"task_id": "a", "terminate": True, "signal": 999}),
        ("add_consumer", {"queue": ""}),
        ("add_consumer", {"queue": "a\nb"}),
        ("cancel_consumer", {"queue": ""}),
        ("drain", {"when": "now"}),
    ],
    ids=str,
)
def test_what_nothing_can_be_done_with(command: str, arguments: dict[str, Any]) -> None:
    """Celery takes an id before it looks at the signal, and consumes from a queue without a name."""
    with pytest.raises(InvalidRequest, match=r"expected|has no argument"):
        check(command, arguments, Panel.data)


def test_a_soft_limit_above_the_hard_one() -> None:
    """It would never be reached: every request would end with an error instead of the text so far, as ``delay`` says too."""
    limits = {"task_name": "tasks.generate", "soft": 60.5, "hard": 60}
    with pytest.raises(InvalidRequest, match=r"time_limit: soft is 60\.5, more than hard, 60: give a smaller one"):
        check("time_limit", limits, Panel.data)


def test_missing() -> None:
    """What a command means nothing without is asked for."""
    with pytest.raises(InvalidRequest, match="queue is None"):
        check("cancel_consumer", {}, Panel.data)


BROADCAST: dict[str, Any] = {"method": "ping", "arguments": {}, "destination": None, "pattern": None, "matcher": None}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"destination": ["a@b"]},
        {"pattern": "mac-*", "matcher": "glob"},
        {"pattern": r"^mac-\d+@.*$", "matcher": "pcre"},
        {"reply_to": {"exchange": "e", "routing_key": "r"}, "ticket": "t"},
        {"something": "of a later version"},
    ],
)
def test_a_broadcast(changes: dict[str, Any]) -> None:
    """A broadcast keeps what it says."""
    said = check_broadcast({**BROADCAST, **changes})
    assert said == {
        name: value for name, value in {**BROADCAST, **changes}.items() if value is not None and name != "something"
    }


@pytest.mark.parametrize(
    "body",
    [
        None,
        5,
        "ping",
        [],
        {},
        {**BROADCAST, "method": ["ping"]},
        {**BROADCAST, "method": None},
        {**BROADCAST, "arguments": [1]},
        {**BROADCAST, "destination": "a@b"},
        {**BROADCAST, "destination": [5]},
        {**BROADCAST, "pattern": 5},
        {**BROADCAST, "pattern": "a", "matcher": "soundex"},
        {**BROADCAST, "pattern": "(", "matcher": "pcre"},
        {**BROADCAST, "pattern": "(a+)+b", "matcher": "pcre"},
        {**BROADCAST, "pattern": "a*a*a*a*b", "matcher": "pcre"},
        {**BROADCAST, "reply_to": "me"},
        {**BROADCAST, "reply_to": {"exchange": 5, "routing_key": "r"}},
        {**BROADCAST, "reply_to": {"exchange": "e", "routing_key": "r"}, "ticket": {}},
    ],
)
def test_no_broadcast(body: Any) -> None:
    """What has not the shape of a broadcast is refused with one line."""
    with pytest.raises(InvalidRequest) as caught:
        check_broadcast(body)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
