"""Checks control broadcasts and the arguments of control commands.

Celery takes whatever comes. A time limit that is text would fail every later request, and a queue whose name is a number would
end the worker's loop one turn later.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

from tasks.broker.message.envelope import MAX_LIMIT_S
from tasks.errors import InvalidRequest
from tasks.messages.identifier import IDENTIFIER, MAX_ID_CHARACTERS, is_identifier

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping

#: Ids in one command. Celery asks the result backend about every id.
MOST_IDS = 10_000
MAX_TEXT = 1_000
EXCHANGES = ("direct", "topic", "fanout")
#: A regular expression with a repeated group, or with many repetitions, can take for ever to match.
SLOW_PATTERN = re.compile(r"\)[*+?{]")
MOST_REPEATS = 3


@dataclass(frozen=True, slots=True)
class Kind:
    """The type of an argument, in words and as a check."""

    expected: str
    fits: Callable[[Any], bool]


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TEXT


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_ID_CHARACTERS


def _are_ids(value: Any) -> bool:
    return _is_id(value) or (isinstance(value, list) and len(value) <= MOST_IDS and all(map(_is_id, value)))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _are_stamps(value: Any) -> bool:
    if isinstance(value, dict):
        return len(value) <= MOST_IDS and all(map(_is_text, value)) and all(map(_are_ids, value.values()))
    return (
        isinstance(value, list) and len(value) <= MOST_IDS and all(_is_text(stamp) and "=" in stamp for stamp in value)
    )


def _is_signal(value: Any) -> bool:
    if isinstance(value, str):  # as Celery reads it
        return (value if value.startswith("SIG") else f"SIG{value}") in signal.Signals.__members__
    return COUNT.fits(value) and value in set(signal.Signals)


def _is_queue(value: Any) -> bool:
    return isinstance(value, str) and is_identifier(value)


TEXT = Kind(f"text of at most {MAX_TEXT} characters", _is_text)
QUEUE = Kind(f"the name of a queue, {IDENTIFIER}", _is_queue)
IDS = Kind(f"an id, or a list of at most {MOST_IDS} ids of 1 to {MAX_ID_CHARACTERS} characters", _are_ids)
TEXTS = Kind(
    f"a list of at most {MOST_IDS} texts",
    lambda value: isinstance(value, list) and len(value) <= MOST_IDS and all(map(_is_text, value)),
)
STAMPS = Kind("stamps and their values, as an object or as a list of name=value", _are_stamps)
#: Flower writes 1 for true: it reads its forms with ``strtobool``.
FLAG = Kind("true or false", lambda value: isinstance(value, int) and value in (0, 1))
SECONDS = Kind(
    f"a number of seconds up to {MAX_LIMIT_S}", lambda value: _is_number(value) and 0 <= value <= MAX_LIMIT_S
)
RATE = Kind("a number, or text as 10/m", lambda value: _is_text(value) or (_is_number(value) and value >= 0))
COUNT = Kind(
    "a whole number from 0 to 10,000",
    lambda value: isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 10_000,
)
SIGNAL = Kind("the name or the number of a signal", _is_signal)
EXCHANGE = Kind(f"one of {', '.join(EXCHANGES)}", lambda value: value in EXCHANGES if isinstance(value, str) else False)

#: The arguments of Celery's commands and ours. A command that is missing here belongs to another application.
ARGUMENTS: dict[str, Mapping[str, Kind]] = {
    "revoke": {"task_id": IDS, "terminate": FLAG, "signal": SIGNAL},
    "terminate": {"task_id": IDS, "signal": SIGNAL},
    "revoke_by_stamped_headers": {"headers": STAMPS, "terminate": FLAG, "signal": SIGNAL},
    "rate_limit": {"task_name": TEXT, "rate_limit": RATE},
    "time_limit": {"task_name": TEXT, "soft": SECONDS, "hard": SECONDS},
    "add_consumer": {"queue": QUEUE, "exchange": TEXT, "exchange_type": EXCHANGE, "routing_key": TEXT},
    "cancel_consumer": {"queue": QUEUE},
    "query_task": {"ids": IDS},
    "registered": {"taskinfoitems": TEXTS, "builtins": FLAG},
    "dump_tasks": {"taskinfoitems": TEXTS, "builtins": FLAG},
    "active": {"safe": FLAG},
    "dump_active": {"safe": FLAG},
    "conf": {"with_defaults": FLAG},
    "dump_conf": {"with_defaults": FLAG},
    "hello": {"from_node": TEXT, "revoked": IDS},
    "election": {"id": TEXT, "topic": TEXT, "action": TEXT},
    "shutdown": {"msg": TEXT},
    **{
        name: {}
        for name in ("enable_events", "disable_events", "heartbeat", "active_queues", "report", "drain", "resume")
    },
    "objgraph": {"num": COUNT, "max_depth": COUNT, "type": TEXT},
    "memdump": {"samples": COUNT},
    "load_model": {"name": TEXT},
    "pin_model": {"name": TEXT},
    "unload_model": {"name": TEXT},
}
#: Arguments that a command cannot do without. Celery would take ``None`` for a queue's or a task's name.
REQUIRED = {"queue", "task_id", "ids", "name", "task_name", "rate_limit", "headers", "id", "topic", "from_node"}


def check(command: str, arguments: Mapping[str, Any], known: Container[str]) -> None:
    """Check that there is a command, and its arguments.

    Raises:
        InvalidRequest: names the first that is wrong.
    """
    if command not in known:
        raise InvalidRequest(f"no control command {command!r:.60}")
    kinds = ARGUMENTS.get(command)
    if kinds is None:
        return
    for name in arguments:
        if name not in kinds:
            raise InvalidRequest(
                f"{command} has no argument {name!r:.60}: its arguments are {', '.join(kinds) or 'none'}"
            )
    for name, kind in kinds.items():
        value = arguments.get(name)
        if value is None and name not in REQUIRED:
            continue
        if not kind.fits(value):
            raise InvalidRequest(f"{command}: {name} is {_shown(value)}: expected {kind.expected}")
    soft, hard = arguments.get("soft"), arguments.get("hard")
    if soft and hard and soft > hard:  # 0 is no limit
        raise InvalidRequest(f"{command}: soft is {soft}, more than hard, {hard}: give a smaller one")


def check_broadcast(body: Any) -> dict[str, Any]:
    """The known parts of a broadcast.

    Raises:
        InvalidRequest: names the first wrong part.
    """
    if not isinstance(body, dict):
        raise InvalidRequest(f"a broadcast is {_shown(body)}: expected an object with method and arguments")
    method, arguments, destination = body.get("method"), body.get("arguments"), body.get("destination")
    if not _is_text(method):
        raise InvalidRequest(f"a broadcast's method is {_shown(method)}: expected the name of a command")
    if arguments is not None and not (isinstance(arguments, dict) and len(arguments) <= MAX_TEXT):
        raise InvalidRequest(f"{method}: arguments is {_shown(arguments)}: expected an object")
    if destination is not None and not (isinstance(destination, list) and all(map(_is_text, destination))):
        raise InvalidRequest(f"{method}: destination is {_shown(destination)}: expected a list of workers' names")
    if body.get("pattern") is not None:
        _check_pattern(body["pattern"], body.get("matcher"))
    if body.get("reply_to") is not None and not can_be_told(body):
        raise InvalidRequest(
            f"{method}: reply_to is {_shown(body['reply_to'])}: expected an exchange and a routing_key"
        )
    names = ("method", "arguments", "destination", "pattern", "matcher", "reply_to", "ticket")
    return {name: body[name] for name in names if body.get(name) is not None}


def can_be_told(body: dict[str, Any]) -> bool:
    """Whether a broadcast says where its answer is waited for."""
    reply_to, ticket = body.get("reply_to"), body.get("ticket")
    names = (reply_to.get("exchange"), reply_to.get("routing_key")) if isinstance(reply_to, dict) else (None,)
    return all(map(_is_text, names)) and (ticket is None or _is_text(ticket))


def _check_pattern(pattern: Any, matcher: Any) -> None:
    if not _is_text(pattern) or matcher not in (None, "glob", "pcre"):
        raise InvalidRequest(
            f"pattern {_shown(pattern)} with matcher {_shown(matcher)}: expected text, with glob or pcre"
        )
    if matcher != "pcre":
        return
    if SLOW_PATTERN.search(pattern) or len(re.findall(r"[*+{]", pattern)) > MOST_REPEATS:
        raise InvalidRequest(
            f"pattern {pattern!r:.60} repeats a group, or more than {MOST_REPEATS} times: matching it may take for ever; use glob"
        )
    try:
        re.compile(pattern)
    except re.error as error:
        raise InvalidRequest(f"pattern {pattern!r:.60} is not a regular expression: {error}") from None


def _shown(value: Any) -> str:
    if isinstance(value, list | dict):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    return f"{value!r:.60}"
