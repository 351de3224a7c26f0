"""Celery's options of a request: those that there are, and values that Celery or kombu would pass over without a word."""

from __future__ import annotations

import math
from datetime import datetime
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any
from uuid import UUID

from kombu.utils.json import dumps

from tasks.broker.message.message import UNPACKERS
from tasks.client.request.suggestion import suggestion
from tasks.errors import InvalidRequest
from tasks.messages.depth import MAX_DEPTH, exceeds
from tasks.messages.identifier import IDENTIFIER, is_identifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: Longest time that anything may take or wait: timers and dates break far beyond it.
MAX_TIME_S = 10 * 365 * 86_400
MOST_URGENT, LEAST_URGENT = 0, 9

#: What people set.
OPTIONS = frozenset(
    {
        "countdown", "eta", "expires", "time_limit", "soft_time_limit", "priority", "queue", "ignore_result", "task_id", "link",
        "link_error", "shadow", "headers", "retry", "retry_policy", "serializer", "compression", "exchange", "routing_key",
        "connection", "producer", "publisher", "add_to_parent", "argsrepr", "kwargsrepr", "delivery_mode", "stamped_headers",
    }
)  # fmt: skip
#: Headers by which Celery knows a message: with another id or task it would reach nobody.
_CELERYS_HEADERS = frozenset(
    {
        "lang", "task", "id", "root_id", "parent_id", "group", "group_index", "eta", "expires", "retries", "timelimit",
        "argsrepr", "kwargsrepr", "origin", "ignore_result", "shadow", "replaced_task_nesting", "compression",
    }
)  # fmt: skip
#: Of a retry policy: numbers, and what kombu calls or catches.
_RETRY_NUMBERS = frozenset({"max_retries", "interval_start", "interval_step", "interval_max"})
_RETRY_CALLS = frozenset({"errback", "callback", "on_revive", "retry_errors"})
#: What Celery itself sets: its canvas, its retries and its routes.
_CELERYS = frozenset(
    {
        "chain", "chord", "confirm_timeout", "declare", "exchange_type", "expiration", "group_id", "group_index", "immediate",
        "mandatory", "origin", "parent_id", "replaced_task_nesting", "reply_to", "result_cls", "retries", "root_id",
        "route_name", "router", "task_type", "throw", "timeout", "logfile", "loglevel", "subtask_type", "visitor", "app",
    }
)  # fmt: skip
_KNOWN = OPTIONS | _CELERYS
#: Values that are of Python's own types. A union would be made at each look.
_PYTHONS = (str, int, float)


def checked(given: dict[str, Any], fields: Iterable[str]) -> dict[str, Any]:
    """The options, with numbers of other libraries as Python's; one that nobody would look at is refused.

    Args:
        given: what was given to ``apply_async`` beside ``args`` and ``kwargs``.
        fields: the names of the parameters, which belong into ``kwargs``.

    Raises:
        InvalidRequest: names the option, its value and the remedy.
    """
    stamps = _stamps(given)
    if not _KNOWN.issuperset(given):
        for name in given:
            if name not in _KNOWN and name not in stamps:
                raise InvalidRequest(_unknown(name, fields))
    options = dict(given)
    for name, value in given.items():
        if value is None or name not in _VALUES:
            continue
        options[name] = found = _number(value)
        is_right, hint = _VALUES[name]
        if not is_right(found):
            raise InvalidRequest(f"{name}={_short(found)}: {hint}")
    taken = sorted(_CELERYS_HEADERS.intersection(options.get("headers") or ()))
    if taken:
        raise InvalidRequest(
            f"headers: {taken[0]} is one of Celery's own, by which a message is known: name yours differently"
        )
    if options.get("countdown") is not None and options.get("eta") is not None:
        raise InvalidRequest("both countdown and eta are set: give one of them")
    soft, hard = options.get("soft_time_limit"), options.get("time_limit")
    if soft is not None and hard is not None and soft > hard:
        raise InvalidRequest(f"soft_time_limit={soft!r} is more than time_limit={hard!r}: give a smaller one")
    return options


def checked_id(task_id: Any) -> str | None:
    """A task id as text; ``None`` has Celery choose one.

    Raises:
        InvalidRequest: some part of the fleet could not do with this one.
    """
    if isinstance(task_id, UUID):
        return str(task_id)
    if task_id is None:
        return None
    if not is_identifier(task_id):
        raise InvalidRequest(f"task_id={_short(task_id)}: use {IDENTIFIER}, or leave it out for a new one")
    return str(task_id)


def _stamps(options: dict[str, Any]) -> Iterable[str]:
    """The names of the options that are stamps.

    Raises:
        InvalidRequest: a stamp is missing, or cannot be a part of a message.
    """
    stamps = options.get("stamped_headers") or ()
    if not isinstance(stamps, list | tuple | set | frozenset):
        raise InvalidRequest(f"stamped_headers={_short(stamps)}: give a list of the stamps' names")
    for name in stamps:
        if not isinstance(name, str) or name not in options:
            raise InvalidRequest(
                f"stamped_headers has {_short(name)}: give its value beside it, as in apply_async(…, {name}=…)"
            )
        if not _are_headers({name: options[name]}):
            raise InvalidRequest(f"{name}={_short(options[name])}: a stamp is text, a number or a list of them")
    return stamps


def _unknown(name: str, fields: Iterable[str]) -> str:
    if name in fields:
        return f"{name}: a parameter and not an option: use delay({name}=…) or put it into kwargs={{…}}"
    hint = suggestion(name, OPTIONS, f"leave it out; the options are {', '.join(sorted(OPTIONS))}")
    return f"{name:.60}: unknown option; {hint}"


def _number(value: Any) -> Any:
    # Asking the numbers' abstract classes takes longer.
    if value is None or isinstance(value, _PYTHONS):
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) if isinstance(value, float) else True


def _is_limit(value: Any) -> bool:
    return _is_number(value) and 0 < value <= MAX_TIME_S


def _is_time(value: Any) -> bool:
    """A date, or the text of one: after 1970, and where a time zone cannot move it out of what Python can name."""
    try:
        return 1970 <= (value if isinstance(value, datetime) else datetime.fromisoformat(value)).year < 9999
    except (TypeError, ValueError):
        return False


def _is_expiry(value: Any) -> bool:
    return _is_limit(value) or _is_time(value)


def _is_priority(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and MOST_URGENT <= value <= LEAST_URGENT


def _is_queue(value: Any) -> bool:
    """A queue's name, or an object of kombu's that has one. It becomes a key, and a word in lines of a log."""
    return (isinstance(value, str) or hasattr(value, "routing_key")) and is_identifier(getattr(value, "name", value))


def _is_retry_policy(value: Any) -> bool:
    """Celery's, whose numbers kombu adds up; a name that it does not know is a ``TypeError`` of kombu's."""
    if not isinstance(value, dict):
        return False
    return all(
        setting is None or (_is_number(setting) if name in _RETRY_NUMBERS else name in _RETRY_CALLS)
        for name, setting in value.items()
    )


def _are_headers(value: Any) -> bool:
    if not isinstance(value, dict) or exceeds(value, MAX_DEPTH):
        return False
    try:
        dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def _is_signature(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("task"), str)


_CANVAS = "leave it out: Celery sets it"
#: Options that become texts, and whole numbers, in a message.
_TEXTS = ("argsrepr", "kwargsrepr", "group_id", "origin", "parent_id", "reply_to", "root_id", "route_name", "shadow")
_COUNTS = ("group_index", "replaced_task_nesting", "retries")
#: Options whose wrong values would be passed over, or raise something unclear, or reach a worker that drops the message.
_VALUES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "priority": (_is_priority, "use 0 (the most urgent, the default), 5, or 9 for batch work"),
    "countdown": (lambda value: _is_number(value) and 0 <= value <= MAX_TIME_S, "use a number of seconds from now"),
    "eta": (_is_time, "use a datetime, or its text as 2026-01-31T12:00:00+00:00"),
    "expires": (_is_expiry, "use a number of seconds above 0, or a datetime"),
    "time_limit": (_is_limit, "use a number of seconds above 0"),
    "soft_time_limit": (_is_limit, "use a number of seconds above 0"),
    "ignore_result": (lambda value: isinstance(value, bool), "use True or False"),
    "serializer": (lambda value: value in ("json", "application/json"), "use json, which is all that workers read"),
    "headers": (_are_headers, f"give a dictionary of text, numbers and lists, at most {MAX_DEPTH} levels deep"),
    "queue": (_is_queue, "use the name of a queue, as in tier-3-7B, or leave it out"),
    # Celery passes over a routing key, and has an exchange to which no queue belongs take messages that reach nobody.
    "exchange": (lambda value: value == "", "leave it out, and say queue=… where the model's tier is not meant"),
    "routing_key": (lambda _: False, "leave it out, and say queue=… where the model's tier is not meant"),
    "compression": (
        lambda value: isinstance(value, str) and value in UNPACKERS,
        "use gzip, bzip2 or lzma, which workers unpack",
    ),
    "delivery_mode": (
        lambda value: value in (1, 2, "transient", "persistent"),
        "leave it out: nothing follows from it",
    ),
    "retry": (lambda value: isinstance(value, bool), "use True or False"),
    "retry_policy": (
        _is_retry_policy,
        "give a dictionary of max_retries, interval_start, interval_step and interval_max, as in {'max_retries': 1}",
    ),
    "expiration": (lambda value: _is_number(value) and 0 <= value <= MAX_TIME_S, "use expires=…, in seconds"),
    "connection": (lambda value: hasattr(value, "default_channel"), "give one as app.connection_for_write() makes it"),
    **dict.fromkeys(
        ("producer", "publisher"),
        (lambda value: hasattr(value, "publish"), "give one as app.producer_pool.acquire() gives it"),
    ),
    "chord": (_is_signature, "give the signature that follows the group, or use chord(header)(body)"),
    "chain": (
        lambda value: isinstance(value, list | tuple) and all(map(_is_signature, value)),
        "give a list of signatures, or use chain(…)",
    ),
    "declare": (lambda value: isinstance(value, list | tuple), _CANVAS),
    "add_to_parent": (lambda value: isinstance(value, bool), "use True or False"),
    **dict.fromkeys(_TEXTS, (lambda value: isinstance(value, str), "give a text, or leave it out")),
    **dict.fromkeys(_COUNTS, (lambda value: isinstance(value, int) and value >= 0, _CANVAS)),
    **dict.fromkeys(("timeout", "confirm_timeout"), (_is_limit, "use a number of seconds above 0")),
    "result_cls": (callable, _CANVAS),
    "router": (lambda value: hasattr(value, "route"), _CANVAS),
    "task_type": (lambda value: hasattr(value, "app"), _CANVAS),
    "exchange_type": (lambda value: value == "direct", "leave it out: the fleet's queues are direct"),
}


def _short(value: Any) -> str:
    try:
        text = f"{value!r}" if not isinstance(value, int) or value.bit_length() < 1024 else "<int>"
    except RecursionError:
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 60 else f"{text[:57]}…"
