"""A grammar of answers in which every call is sound, for the syntaxes whose arguments are JSON."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tasks.engine.constraint.endless import ENDLESS, endless
from tasks.engine.constraint.equivalent import adjusted
from tasks.engine.constraint.schema import NEVER, as_object, faults
from tasks.engine.constraint.source import WHITESPACE
from tasks.errors import InvalidRequest
from tasks.messages.constraint import Constraint
from tasks.messages.encoding import to_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.engine.tools.form import ToolForm
    from tasks.messages.tools import Function, Tools

#: What stands before a call's arguments and behind them, in texts and in names of tokens. ``{}`` is the function's name.
_CALLS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "json_tools": (('\n{"name": "{}", "arguments": ',), ("}\n", "</tool_call>")),
    "mistral": (("{}", "[ARGS]"), ()),
    "kimi_k2": (
        ("<|tool_call_begin|>", "functions.{}:", "#", "<|tool_call_argument_begin|>"),
        ("<|tool_call_end|>", "<|tool_calls_section_end|>"),
    ),
}
#: Keywords that say in other places which arguments there are.
_ELSEWHERE = (
    "additionalProperties",
    "patternProperties",
    "allOf",
    "anyOf",
    "oneOf",
    "$ref",
    "if",
    "unevaluatedProperties",
)


def check_parameters(tools: Tools) -> None:
    """Check that each function can be called at all.

    Raises:
        InvalidRequest: no arguments are valid by a schema, or a reference in it leads nowhere.
    """
    for function in tools.functions:
        for fault in _faults(to_json(_described(function))):
            if any(reason in fault for reason in NEVER):
                raise InvalidRequest(f"tools: the parameters of {function.name!r}: {fault}")


def constraint_of(form: ToolForm, tools: Tools, term: Callable[[str], str]) -> Constraint | None:
    """What an answer with these tools has to be; ``None`` for any answer.

    It is ``strict`` where all of their schemas is enforced: every call in such an answer is sound.

    Args:
        form: how the model writes calls.
        tools: what it may call.
        term: gives a text or a token as a term of a Lark grammar.

    Raises:
        InvalidRequest: the schema of a strict function cannot be enforced.
    """
    if form.syntax.name not in _CALLS or (form.syntax.name == "mistral" and "[ARGS]" not in form.names):
        return None
    functions = [called for called in tools.functions if tools.only in (None, called.name)]
    strict = True
    rules = [_start(form, tools, term), f"call: {' | '.join(f'call_{n}' for n in range(len(functions)))}"]
    for number, function in enumerate(functions):
        before, behind = _CALLS[form.syntax.name]
        opening = " ".join(_term(part.replace("{}", function.name), term) for part in before)
        closing = " ".join(_term(part, term) for part in behind)
        rules.append(f"call_{number}: {opening} arguments_{number} {closing}")
        schema = _schema(function)
        strict = strict and not schema["x-guidance"]["lenient"]
        rules.append(f"arguments_{number}: %json {to_json(schema)}")
    return Constraint(kind="calls", value="\n".join(rules), strict=strict)


def _start(form: ToolForm, tools: Tools, term: Callable[[str], str]) -> str:
    """The rule of a whole answer."""
    start = form.syntax.start
    if tools.choice == "required":
        more = rf"(/\n?/ {term(start)} call)*" if tools.parallel else ""
        return rf"start: /[ \n]{{0,2}}/ {term(start)} call {more}"
    if start in form.names:  # a token, which no text has in it
        rules = f"start: text | segment{'+ text?' if tools.parallel else ''}\nsegment: text? {term(start)} call"
        return rf"{rules}{chr(10)}text: /(?s:.+)/"
    marker = "".join(f"\\{char}" if not char.isalnum() and char not in "<>_" else char for char in start)
    return "\n".join(
        (
            f"start: TEXT | segment{'+ TEXT?' if tools.parallel else ''}",
            "segment: before call",
            f"before[lazy]: /(?s:.*){marker}/",
            f"TEXT: /(?s:.*)/ & ~/(?s:.*){marker}(?s:.*)/",
        )
    )


def _term(part: str, term: Callable[[str], str]) -> str:
    return "/[0-9]{1,3}/" if part == "#" else term(part)


@lru_cache(maxsize=256)
def _faults(schema: str) -> tuple[str, ...]:
    """What of a schema cannot be enforced."""
    described = json.loads(schema)
    pointer = endless(described)
    return (*faults(described, strict=True), *([f"{pointer}: {ENDLESS}"] if pointer else ()))


def _described(function: Function) -> dict[str, Any]:
    """The schema of a function's arguments, in a copy."""
    return as_object(adjusted(json.loads(to_json(function.parameters))))


def _schema(function: Function) -> dict[str, Any]:
    """The schema of a function's arguments as llguidance has to be told it."""
    schema = _described(function)
    if (
        not any(name in schema for name in _ELSEWHERE)
        and set(schema.get("required", ())) <= schema.get("properties", {}).keys()
    ):
        schema["additionalProperties"] = False  # else a model may go on inventing arguments
    found = _faults(to_json(schema))
    if found and function.strict:
        raise InvalidRequest(f"tools: the parameters of {function.name!r}, which is strict: {found[0]}")
    return {**schema, "x-guidance": {"whitespace_pattern": WHITESPACE, "lenient": bool(found)}}
