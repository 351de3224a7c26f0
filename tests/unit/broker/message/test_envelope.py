"""A message is checked before Celery takes its types for granted."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.broker.message.envelope import check, check_frame, task_id_of
from tasks.client.request.chaining import previous_of, with_previous
from tasks.client.request.parameters import parse
from tasks.errors import InvalidRequest
from tasks.messages.depth import MAX_MESSAGE_DEPTH
from tasks.messages.journal import TYPES, Entry, decode
from tasks.messages.registry import Unreadable, WorkerRecord, decode_record
from tests.fleet import message
from tests.garbage import EXAMPLES, JSON, PARAMETERS, mutated

if TYPE_CHECKING:
    from collections.abc import Callable

HEADERS: dict[str, Any] = {
    "id": "a",
    "task": "tasks.generate",
    "eta": datetime.now(UTC).isoformat(),
    "expires": None,
    "timelimit": [None, 2.5],
    "retries": 0,
    "argsrepr": "()",
    "ignore_result": False,
    "stamps": {},
    "stamped_headers": None,
}
SIGNATURE: dict[str, Any] = {"task": "tasks.generate", "args": [], "kwargs": {}, "options": {}, "subtask_type": None}
SOUND = [["before"], {"prompt": "x"}, {"callbacks": None, "errbacks": [], "chain": [SIGNATURE], "chord": SIGNATURE}]


def test_sound() -> None:
    """What Celery itself sends passes."""
    check_frame(message("a"))
    check(HEADERS, SOUND)
    check({"id": "a", "task": "tasks.generate"}, [[], {}, None])


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        (None, "headers: expected an object, found NoneType"),
        ({"id": ""}, "headers.id is ''"),
        ({"id": "x" * 257}, "headers.id is 'xxx"),
        ({"id": "\ud800"}, "headers.id"),
        ({"eta": "soon"}, "headers.eta is 'soon'"),
        ({"timelimit": [True, None]}, "headers.timelimit is [True, None]"),
        ({"timelimit": [-1, None]}, "headers.timelimit is [-1, None]"),
        ({"retries": True}, "headers.retries is True"),
        ({"shadow": 5}, "headers.shadow is 5"),
        ({"ignore_result": 1}, "headers.ignore_result is 1"),
        ({"stamps": []}, "headers.stamps: expected an object, found a list of 0"),
    ],
)
def test_headers(headers: dict[str, Any] | None, said: str) -> None:
    """The first wrong header is named."""
    with pytest.raises(InvalidRequest) as caught:
        check(headers if headers is None else {**HEADERS, **headers}, SOUND)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "body: expected a list"),
        ([1, {}, {}], "body[0], the arguments"),
        ([["a", "b"], {}, {}], "body[0] has 2 positional arguments"),
        ([[], 5, {}], "body[1], the keywords"),
        ([[], {}, 5], "body[2], the options"),
        ([[], {}, {"chain": {}}], "body[2].chain: expected a list of signatures"),
        ([[], {}, {"chord": {"task": 5}}], "body[2].chord: expected a signature"),
        ([[], {}, {"errbacks": [{"task": "x", "args": 5}]}], "body[2].errbacks.args: expected list, found int"),
    ],
)
def test_bodies(body: Any, said: str) -> None:
    """The first wrong part of the body is named."""
    with pytest.raises(InvalidRequest) as caught:
        check(HEADERS, body)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        ([], "message: expected an object"),
        ({}, "properties: expected an object"),
        ({"properties": {"delivery_tag": 5}}, "properties.delivery_tag is 5"),
        ({"properties": {"delivery_tag": "t"}}, "properties.delivery_info: expected an object"),
        ({"properties": {"delivery_tag": "t", "delivery_info": {}}}, "properties.delivery_info.exchange is None"),
        (
            {"properties": {**message("a")["properties"], "priority": "high"}},
            "properties.priority is 'high': expected a whole number",
        ),
    ],
)
def test_frames(frame: Any, said: str) -> None:
    """What kombu needs and does not find is named."""
    with pytest.raises(InvalidRequest) as caught:
        check_frame(frame)
    assert str(caught.value).startswith(said)


def test_depth() -> None:
    """A message, or a body, that is nested too deeply is refused with the bound; a long chain is not."""
    deep: Any = 1
    for _ in range(MAX_MESSAGE_DEPTH):
        deep = [deep]
    with pytest.raises(InvalidRequest, match=f"message: nested more than {MAX_MESSAGE_DEPTH} levels deep"):
        check_frame({**message("a"), "headers": {"a": deep}})
    with pytest.raises(InvalidRequest, match=f"body: nested more than {MAX_MESSAGE_DEPTH} levels deep"):
        check(HEADERS, [[deep], {}, {}])
    check(HEADERS, [[], {}, {"chain": [SIGNATURE] * 10_000}])


def refusal(take: Callable[[], object]) -> str:
    """What is said where this is refused; nothing where it is taken."""
    try:
        take()
    except InvalidRequest as error:
        return str(error)
    return ""


@settings(max_examples=EXAMPLES)
@given(mutated(message("a")) | JSON)
def test_any_message(found: Any) -> None:
    """Whatever a message is, it is taken or refused in one line, and its id is a string that can be a key, or none."""
    task_id = task_id_of(found)
    assert task_id is None or task_id.encode()

    def take() -> None:
        check_frame(found)
        check(found.get("headers"), [[], {}, {}])

    said = refusal(take)
    assert "\n" not in said
    assert said or task_id


@settings(max_examples=EXAMPLES)
@given(JSON, st.dictionaries(st.sampled_from(PARAMETERS) | st.text(max_size=5), JSON, max_size=4))
def test_any_keywords(previous: Any, values: dict[str, Any]) -> None:
    """Whatever stands in a request's keywords is taken or refused in one line."""
    said = refusal(lambda: parse(with_previous(previous_of([previous]), {"prompt": "x", **values})))
    assert "\n" not in said


@settings(max_examples=EXAMPLES)
@given(st.binary() | st.tuples(st.sampled_from(sorted(TYPES)), JSON).map(lambda drawn: _typed(*drawn)))
def test_any_journal_entry(payload: str | bytes) -> None:
    """Whatever stands in a journal is an entry or nothing."""
    assert isinstance(decode(payload), Entry | None)


@settings(max_examples=EXAMPLES)
@given(st.binary() | JSON.map(json.dumps) | st.tuples(st.just("v"), JSON).map(lambda drawn: json.dumps(dict([drawn]))))
def test_any_registry_record(payload: str | bytes) -> None:
    """Whatever stands in the registry is a record or says why not."""
    assert isinstance(decode_record("mac@lab", payload), WorkerRecord | Unreadable)


def _typed(kind: str, value: Any) -> str:
    return json.dumps({"type": kind, **(value if isinstance(value, dict) else {"attempt": value})})
