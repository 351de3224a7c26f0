"""``generate.s(...)``: Celery's signature, quicker."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any
from uuid import RFC_4122, UUID

import pytest
from celery import Signature, chain

from tasks import generate

if TYPE_CHECKING:
    from tasks.client.sending.signature import RequestSignature

VALUES = {"prompt": "a", "metadata": {"x": [1]}}


def both(**options: Any) -> tuple[RequestSignature, Signature]:
    """The signature, and Celery's own of the same request."""
    ours = generate.s(**VALUES).set(**options)
    return ours, Signature(generate, (), dict(VALUES), app=generate.app).set(**options)


@pytest.mark.parametrize("options", [{}, {"priority": 9, "link": [generate.s(prompt="b")]}], ids=["plain", "options"])
def test_a_copy(options: dict[str, Any]) -> None:
    """It has the same fields and values, and nothing that is set in it is set in the first one."""
    ours, celerys = both(**options)
    for copy, other in (
        (ours.clone(), celerys.clone()),
        (ours.clone(kwargs={"seed": 1}), celerys.clone(kwargs={"seed": 1})),
    ):
        assert (copy, copy.app, copy.type) == (other, other.app, other.type)
    copy = ours.clone()
    copy.set(queue="x").freeze()
    copy.kwargs["seed"] = 1
    assert ours == both(**options)[0]


def test_its_id() -> None:
    """A random UUID, unless it has one."""
    ids = [UUID(generate.s(**VALUES).freeze().id) for _ in range(3)]
    assert {(task_id.version, task_id.variant) for task_id in ids} == {(4, RFC_4122)}
    assert len(set(ids)) == 3
    assert generate.s(**VALUES).set(task_id="mine").freeze().id == generate.s(**VALUES).freeze("mine").id == "mine"


@pytest.mark.parametrize(
    ("own", "args", "given"),
    [
        ({}, None, {}),
        ({"group_id": "a", "priority": 5}, None, {"group_id": "b", "priority": 9, "chord": None}),
        ({"stamped_headers": ["mine"], "mine": "a"}, None, {"mine": "b", "group_id": "c"}),
        ({"priority": 5}, ("before",), {"shadow": "x"}),
    ],
    ids=["plain", "group", "stamps", "arguments"],
)
def test_what_it_sends(own: dict[str, Any], args: Any, given: dict[str, Any]) -> None:
    """The arguments and options that Celery's own would give to ``apply_async``."""
    calls = []
    for signature in both(**own):
        signature.__dict__["_apply_async"] = lambda *call, **options: calls.append((call, options))
        signature.apply_async(args, **given)
    assert calls[0] == calls[1]


def test_what_travels() -> None:
    """In a chain, or pickled, it is what Celery's own would be."""
    ours, celerys = both()
    assert dict(pickle.loads(pickle.dumps(ours))) == dict(celerys)  # noqa: S301
    assert list((ours | celerys).tasks) == list(chain(celerys, celerys).tasks)
