"""Tools: the functions that a model may call, and the calls in its answer."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

#: ``auto``: the model decides whether it calls functions; ``required``: it calls one at least.
ToolChoice: TypeAlias = Literal["auto", "required"]
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
#: Mistral's chat templates refuse a history whose ids have another length.
_ID_CHARACTERS = 9


@dataclass(slots=True, frozen=True, kw_only=True)
class Function:
    """A function. ``parameters`` is the JSON Schema of its arguments; ``strict`` says that they have to match it."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})
    strict: bool = False

    def for_template(self) -> dict[str, Any]:
        """The function as chat templates expect it, in OpenAI's shape."""
        described = {} if self.description is None else {"description": self.description}
        return {"type": "function", "function": {"name": self.name, **described, "parameters": self.parameters}}


@dataclass(slots=True, frozen=True, kw_only=True)
class Tools:
    """The tools of a request. ``only`` is the name of the one function that has to be called, if one has."""

    functions: tuple[Function, ...]
    choice: ToolChoice = "auto"
    only: str | None = None
    parallel: bool = True


class Calls:
    """The calls of one answer, put together from their parts."""

    def __init__(self) -> None:
        self._calls: dict[int, dict[str, Any]] = {}

    def add(self, part: Mapping[str, Any]) -> None:
        """Take the next part of a call, as :func:`delta` makes it."""
        call = self._calls.setdefault(part["index"], {"id": "", "name": "", "arguments": ""})
        call["id"] = call["id"] or part.get("id", "")
        call["name"] = call["name"] or part["function"].get("name", "")
        call["arguments"] += part["function"]["arguments"]

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def characters(self) -> int:
        """The number of characters in all arguments together."""
        return sum(len(call["arguments"]) for call in self._calls.values())

    def as_message(self) -> list[dict[str, Any]]:
        """The calls in OpenAI's shape, as an assistant's message has them."""
        return [
            {
                "id": call["id"],
                "type": "function",
                "function": {"name": call["name"], "arguments": call["arguments"]},
            }
            for _, call in sorted(self._calls.items())
        ]


def delta(number: int, arguments: str, call_id: str | None = None, name: str | None = None) -> dict[str, Any]:
    """A part of a call in the shape of OpenAI's streams, where id and name come once."""
    if call_id is None or name is None:
        return {"index": number, "function": {"arguments": arguments}}
    return {
        "index": number,
        "id": call_id,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def call_id(task_id: str, number: int) -> str:
    """The id of an answer's call: the same in every attempt, and one that every chat template takes."""
    digest = hashlib.blake2b(f"{task_id}\0{number}".encode(), digest_size=8).digest()
    value, characters = int.from_bytes(digest, "big"), ""
    for _ in range(_ID_CHARACTERS):
        value, place = divmod(value, len(_ALPHABET))
        characters += _ALPHABET[place]
    return characters
