"""The tools of a request, in OpenAI's shape: functions that the model may call, and whether it has to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, field_validator
from pydantic_core import PydanticCustomError

from tasks.client.request.fields import size_bytes
from tasks.client.request.schema_form import fault_of_form, without_nulls
from tasks.messages.tools import Function, Tools

MAX_TOOLS = 128
MAX_TOOLS_BYTES = 256 * 1024
#: The parts of a function's name are letters and digits everywhere; some families of models read dots, too.
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
#: Fields of a tool that change nothing with this value, and ask for what there is not with another.
_NEUTRAL = {"defer_loading": False}
TOOLS_HINT = 'give a list of {"type": "function", "function": {"name": …, "parameters": {a JSON Schema}}}'
CHOICE_HINT = 'use "auto", "none", "required" or {"type": "function", "function": {"name": …}}'


class FunctionTool(BaseModel):
    """A function that the model may call. ``parameters`` is the JSON Schema of its arguments, which are an object."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    @field_validator("name")
    @classmethod
    def _name_is_plain(cls, value: str) -> str:
        if _NAME.fullmatch(value) is None:
            raise PydanticCustomError("tools", "is not a function's name; use 1 to 64 letters, digits, _, - and .")
        return value

    @field_validator("parameters")
    @classmethod
    def _parameters_are_an_object(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value and value.get("type", "object") != "object":
            raise PydanticCustomError("tools", 'describe no object; use {"type": "object", "properties": …}')
        if value and (fault := fault_of_form(value)):
            raise PydanticCustomError("tools", f"are no JSON Schema: {fault}")
        return value

    def for_engine(self) -> Function:
        """The function as the engine gets it."""
        parameters = {"type": "object", "properties": {}, **(self.parameters or {})}
        return Function(name=self.name, description=self.description, parameters=parameters, strict=bool(self.strict))


class Tool(BaseModel):
    """A tool. There are functions alone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["function"]
    function: FunctionTool


@dataclass(slots=True, frozen=True)
class Choice:
    """Whether a model calls functions: it may, must not, has to, or has to call this one."""

    mode: Literal["auto", "none", "required"] = "auto"
    only: str | None = None

    def __repr__(self) -> str:
        """As a request says it: ``help(generate)`` shows the default."""
        return repr({"type": "function", "function": {"name": self.only}} if self.only else self.mode)


def _read(value: Any) -> Choice:
    """The choice that a value stands for."""
    if isinstance(value, Choice):
        return value
    if value in ("auto", "none", "required"):
        return Choice(value)
    named = _without_nulls(value)
    if isinstance(named, dict) and named.get("type") == "function" and named.keys() <= {"type", "function"}:
        function = _without_nulls(named.get("function"))
        if isinstance(function, dict) and function.keys() == {"name"} and isinstance(function["name"], str):
            return Choice("required", function["name"])
    raise PydanticCustomError("tools", "is not a choice")


ToolList = Annotated[list[Tool], Field(max_length=MAX_TOOLS, description=TOOLS_HINT)]
ToolChoice = Annotated[Choice, PlainValidator(_read), Field(description=CHOICE_HINT)]


def tidied_tool(tool: Any) -> Any:
    """A tool without fields and keywords that are null or change nothing; whatever else it is stays."""
    kept = _without_neutral(tool)
    if isinstance(kept, dict) and isinstance(kept.get("function"), dict):
        function = kept["function"] = _without_neutral(kept["function"])
        if "parameters" in function:
            function["parameters"] = without_nulls(function["parameters"])
    return kept


def _without_neutral(tool: Any) -> Any:
    kept = _without_nulls(tool)
    if not isinstance(kept, dict):
        return kept
    return {name: value for name, value in kept.items() if not (name in _NEUTRAL and value is _NEUTRAL[name])}


def _without_nulls(value: Any) -> Any:
    """An object without fields that are null; whatever else it is stays."""
    return {name: inner for name, inner in value.items() if inner is not None} if isinstance(value, dict) else value


def check_tools(tools: list[Tool], choice: Choice, *, has_messages: bool) -> None:
    """Check the rules that hold between tools and other fields.

    Raises:
        PydanticCustomError: names the field, its value and the remedy.
    """
    if not tools:
        if choice.mode == "required":
            raise PydanticCustomError("tools", f"tool_choice={_said(choice)} needs tools: give both")
        return
    if not has_messages:
        raise PydanticCustomError("tools", "tools are for a chat template, and a prompt has none: send messages")
    names = [tool.function.name for tool in tools]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise PydanticCustomError(
                "tools",
                f"tools[{number}] and tools[{names.index(name)}] are both called {name!r}: give each its own name",
            )
    if choice.only is not None and choice.only not in names:
        known = ", ".join(map(repr, names[:8]))
        raise PydanticCustomError(
            "tools", f"tool_choice names {choice.only!r:.80}, and tools has {known}: name one of them"
        )
    size = size_bytes([tool.model_dump() for tool in tools], "tools:")
    if size > MAX_TOOLS_BYTES:
        raise PydanticCustomError("tools", f"tools are {size} bytes as JSON; the limit is {MAX_TOOLS_BYTES}: send less")


def for_engine(tools: list[Tool], choice: Choice, *, parallel: bool | None) -> Tools | None:
    """The tools as the engine gets them; ``None`` where nothing is to be called.

    Args:
        tools: the functions.
        choice: whether the model has to call them.
        parallel: whether it may call several; if a request does not say, then unless it has to call one that is named: small
            models would go on with that until they are cut off.
    """
    if not tools or choice.mode == "none":
        return None
    functions = tuple(tool.function.for_engine() for tool in tools)
    several = choice.only is None if parallel is None else parallel
    return Tools(functions=functions, choice=choice.mode, only=choice.only, parallel=several)


def _said(choice: Choice) -> str:
    return repr(choice.only or choice.mode)
