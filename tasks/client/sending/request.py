"""A request as it is sent: checked, of plain data, and redacted for monitors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.client.answers.answer_type import response_model
from tasks.client.request.chaining import previous_of, with_previous
from tasks.client.request.form import Form
from tasks.client.request.options import checked, checked_id
from tasks.client.request.parameters import Parameters, check, check_prompt, normalise
from tasks.client.request.plain import plain
from tasks.client.request.prompt import PROMPTS
from tasks.errors import ContextExceeded, InvalidRequest
from worker_config.catalogue import ModelNotAllowed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.client.sending.fleet_view import FleetView
    from worker_config.settings import Settings

#: The form of ``generate``.
GENERATION: Form[Parameters] = Form(Parameters.model_fields, normalise, check, with_previous, PROMPTS, check_prompt)


class Prepared(NamedTuple):
    """The arguments that ``apply_async`` sends. ``parameters`` are its checked keywords, ``response_model`` the answer's type."""

    args: list[Any]
    kwargs: dict[str, Any]
    task_id: str | None
    options: dict[str, Any]
    parameters: Any
    response_model: Any = None


def prepare(args: Any, kwargs: Any, task_id: Any, options: dict[str, Any], form: Form[Any] = GENERATION) -> Prepared:
    """Check what a producer gave for a task with parameters of this form.

    Raises:
        InvalidRequest: a field or an option is unknown, missing or out of bounds; the message names it.
    """
    options = checked(options, form.fields)
    task_id = checked_id(task_id)
    args, kwargs = arguments(args, kwargs)
    previous = plain(previous_of(args), "the positional argument")
    sent = form.normalise(kwargs)
    return Prepared(
        args=[] if previous is None else [previous],
        kwargs=sent,
        task_id=task_id,
        options=options,
        parameters=form.check(form.with_previous(previous, sent), {}),
        response_model=response_model(kwargs),
    )


def with_model(values: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """The parameters with the name of the model: the producer's default where they have none, whatever a worker's is."""
    return {**values, "model": values.get("model") or settings.default_model}


def require_room(parameters: Any, fleet: FleetView) -> None:
    """Refuse an answer that is longer than the model's context, where the catalogue says how long that is.

    Raises:
        ContextExceeded: ``max_tokens`` alone is more.
    """
    if not isinstance(parameters, Parameters):
        return
    try:
        entry = fleet.entry_of(parameters.model or fleet.settings.default_model)
    except ModelNotAllowed:  # which the route says better
        return
    context, longest = entry.context_tokens, parameters.max_tokens
    if context is not None and longest is not None and longest >= context:
        raise ContextExceeded(
            f"max_tokens={longest}: {entry.name} has a context of {context} tokens, for the prompt and the answer together: "
            "ask for fewer"
        )


def arguments(args: Any, kwargs: Any) -> tuple[list[Any] | tuple[Any, ...], dict[str, Any]]:
    """The first two arguments of ``apply_async`` and ``apply``, checked.

    Raises:
        InvalidRequest: one of them is of another type.
    """
    args, kwargs = args if args is not None else (), kwargs if kwargs is not None else {}
    if not isinstance(args, list | tuple):
        raise InvalidRequest(
            f"the first argument is a {type(args).__name__}: use delay(…) with the parameters by keyword, or "
            "apply_async(kwargs={…})"
        )
    if not isinstance(kwargs, dict):
        raise InvalidRequest(f"kwargs is a {type(kwargs).__name__}: give a dictionary of the parameters")
    return args, kwargs
