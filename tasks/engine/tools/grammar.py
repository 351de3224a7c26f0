"""A grammar of answers in which every call is sound, for the syntaxes whose arguments are JSON."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tasks.engine.constraint.depth import DEEP_SCHEMA, MANY_PATTERNS, excess
from tasks.engine.constraint.endless import ENDLESS, endless
from tasks.engine.constraint.equivalent import adjusted
from tasks.engine.constraint.lead import HeaderCalls
from tasks.engine.constraint.schema import NEVER, as_object, faults
from tasks.engine.constraint.source import BEFORE_JSON, OTHERWISE, WHITESPACE
from tasks.engine.constraint.whole_numbers import without_rounded
from tasks.errors import InvalidRequest
from tasks.messages.constraint import Constraint
from tasks.messages.encoding import to_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.engine.tools.form import ToolForm
    from tasks.messages.tools import Function, Tools

#: The texts and names of tokens before a call's arguments and behind them. ``{}`` is the function's name.
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
            if any(reason in fault for reason in (*NEVER, DEEP_SCHEMA, MANY_PATTERNS)):
                raise InvalidRequest(f"tools: the parameters of {function.name!r}: {fault}")


def constraint_of(
    form: ToolForm, tools: Tools, term: Callable[[str], str], *, otherwise: bool = False
) -> Constraint | None:
    """Return the constraint by which each call in an answer is one of these functions', with arguments by its schema; ``None``
    where the syntax leaves no way to say so.

    It is ``strict`` where all of their schemas is enforced: every call in such an answer is sound.

    Args:
        form: how the model writes calls.
        tools: what it may call.
        term: gives a text or a token as a term of a Lark grammar.
        otherwise: whether an answer without a call is what the grammar of this name says, and not any text.

    Raises:
        InvalidRequest: the schema of a strict function cannot be enforced.
    """
    if form.syntax.name not in _CALLS or (form.syntax.name == "mistral" and "[ARGS]" not in form.names):
        return None
    functions = _callable(tools)
    strict = True
    rules = [_start(form, tools, term, otherwise), f"call: {' | '.join(f'call_{n}' for n in range(len(functions)))}"]
    for number, function in enumerate(functions):
        before, behind = _CALLS[form.syntax.name]
        opening = " ".join(_term(part.replace("{}", function.name), term) for part in before)
        closing = " ".join(_term(part, term) for part in behind)
        rules.append(f"call_{number}: {opening} arguments_{number} {closing}")
        schema = _schema(function)
        strict = strict and not schema["x-guidance"]["lenient"]
        rules.append(f"arguments_{number}: %json {to_json(schema)}")
    return Constraint(kind="calls", value="\n".join(rules), strict=strict)


def unchecked(form: ToolForm, tools: Tools, term: Callable[[str], str], *, otherwise: bool = False) -> Constraint:
    """Return the constraint of an answer with these tools, where each call is checked once it is whole.

    Args:
        form: how the model writes calls.
        tools: what it may call.
        term: gives a text or a token as a term of a Lark grammar.
        otherwise: see :func:`constraint_of`.
    """
    call = f"{''.join(_terms(form, term))} rest"
    if tools.choice == "required":
        start = f"{BEFORE_JSON} {call}"
    else:
        start = f"{BEFORE_JSON} (@{OTHERWISE} | {call})" if otherwise else "rest"
    marks = " | ".join(f"<[{token_id}]>" for token_id in sorted(form.marks))
    rest = f"rest: (text? mark)* text?\nmark: {marks}" if marks else "rest: text?"
    return Constraint(kind="calls", value=f"start: {start}\n{rest}\ntext: /(?s:.+)/", strict=False)


def header_calls(tools: Tools, *, checked: bool) -> HeaderCalls:
    """The calls of a model that writes them as messages with headers.

    Args:
        tools: what it may call.
        checked: whether arguments are constrained, as far as that can be.

    Raises:
        InvalidRequest: the schema of a strict function cannot be enforced.
    """
    functions, required = _callable(tools), tools.choice == "required"
    if not checked:
        return HeaderCalls(tuple((function.name, "/(?s:.*)/") for function in functions), required, sound=False)
    schemas = {function.name: _schema(function) for function in functions}
    sound = not any(schema["x-guidance"]["lenient"] for schema in schemas.values())
    return HeaderCalls(tuple((name, f"%json {to_json(schema)}") for name, schema in schemas.items()), required, sound)


def _callable(tools: Tools) -> list[Function]:
    return [function for function in tools.functions if tools.only in (None, function.name)]


def _start(form: ToolForm, tools: Tools, term: Callable[[str], str], otherwise: bool) -> str:
    """The rule of a whole answer."""
    start = form.syntax.start
    if otherwise or tools.choice == "required":
        more = rf"(/\n?/ {term(start)} call)*" if tools.parallel else ""
        calls = f"{term(start)} call {more}"
        return f"start: {BEFORE_JSON} {calls if tools.choice == 'required' else f'(@{OTHERWISE} | {calls})'}"
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


def _terms(form: ToolForm, term: Callable[[str], str]) -> list[str]:
    """Return the beginnings of calls, of tokens and of text, as terms of a Lark grammar."""
    names = "|".join(map(re.escape, form.names)) or r"(?!)"
    return [f"{term(part)} " for part in re.split(f"({names})", form.syntax.start) if part]


def _term(part: str, term: Callable[[str], str]) -> str:
    return "/[0-9]{1,3}/" if part == "#" else term(part)


@lru_cache(maxsize=256)
def _faults(schema: str) -> tuple[str, ...]:
    """Return the parts of a schema that cannot be enforced."""
    described = json.loads(schema)
    if found := excess(described):
        return (found,)
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
    schema = without_rounded(schema) if found else schema
    return {**schema, "x-guidance": {"whitespace_pattern": WHITESPACE, "lenient": bool(found)}}
