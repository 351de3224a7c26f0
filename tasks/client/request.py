"""A request as it is sent: checked, of plain data, and redacted for monitors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tasks.client.chaining import previous_of, with_previous
from tasks.client.options import checked, checked_id
from tasks.client.parameters import Parameters, check, normalise
from tasks.client.plain import plain
from tasks.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Request:
    """What ``apply_async`` sends. ``parameters`` is what they mean."""

    args: list[Any]
    kwargs: dict[str, Any]
    task_id: str | None
    options: dict[str, Any]
    parameters: Parameters


def prepare(args: Any, kwargs: Any, task_id: Any, options: dict[str, Any]) -> Request:
    """Check what a producer gave.

    Raises:
        InvalidRequest: a field or an option is unknown, missing or out of bounds; the message names it.
    """
    options = checked(options, Parameters.model_fields)
    task_id = checked_id(task_id)
    args, kwargs = arguments(args, kwargs)
    previous = plain(previous_of(args), "the positional argument")
    sent = normalise(kwargs)
    return Request(
        args=[] if previous is None else [previous],
        kwargs=sent,
        task_id=task_id,
        options=options,
        parameters=check(with_previous(previous, sent)),
    )


def arguments(args: Any, kwargs: Any) -> tuple[list[Any] | tuple[Any, ...], dict[str, Any]]:
    """What ``apply_async`` and ``apply`` take first.

    Raises:
        InvalidRequest: one of them is of another type.
    """
    args, kwargs = args if args is not None else (), kwargs if kwargs is not None else {}
    if not isinstance(args, list | tuple):
        raise InvalidRequest(
            f"the first argument is a {type(args).__name__}: use generate.delay(prompt=…), or apply_async(kwargs={{…}}) "
            "with the parameters"
        )
    if not isinstance(kwargs, dict):
        raise InvalidRequest(f"kwargs is a {type(kwargs).__name__}: give a dictionary of the parameters")
    return args, kwargs
