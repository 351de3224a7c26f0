"""What requests consist of, and how they have to end."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from benchmarks.chaos.judge import Reading, Wanted, Way
from tasks.engine.fake import fake_text
from tasks.messages.tools import Calls

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    from tasks.client.reader.chunks import Chunk


class Mix(Protocol):
    """A kind of load."""

    def reading(self, number: int, draw: random.Random) -> Reading:
        """The request of this number, and how it is read."""

    def parameters(self, reading: Reading) -> dict[str, Any]:
        """What it asks for."""

    def wanted(self, reading: Reading) -> Wanted | None:
        """How it ends where nothing disturbs it; ``None`` where that depends on what is beside it in the batch."""

    def fault(self, reading: Reading, answer: Mapping[str, Any]) -> str | None:
        """What is wrong with an answer, whatever the others are."""


@dataclass(slots=True)
class Said:
    """All that a model says, in one text: its answer alone where it neither thinks nor calls."""

    texts: dict[str, str] = field(default_factory=dict)
    calls: Calls = field(default_factory=Calls)

    def add(self, chunk: Chunk) -> None:
        """Take the next part."""
        if chunk.tool_call is not None:
            self.calls.add(chunk.tool_call)
        else:
            self.texts[chunk.kind] = self.texts.get(chunk.kind, "") + chunk.text

    def __str__(self) -> str:
        return _said(self.texts.get("content", ""), self.texts.get("reasoning"), self.calls.as_message())


def said(answer: Mapping[str, Any]) -> str:
    """What a stored answer says, as :class:`Said` puts it."""
    return _said(answer["text"], answer["reasoning"], answer["tool_calls"] or [])


def _said(text: str, reasoning: str | None, calls: list[dict[str, Any]]) -> str:
    if not reasoning and not calls:
        return text
    # A call's id follows from the request's.
    return json.dumps([reasoning or "", [call["function"] for call in calls], text])


#: Half of the requests for text begin with one of these, and so wait in lanes.
BEGINNINGS = tuple(f"Kind {kind}. " + "What all prompts of a kind begin with. " * 20 for kind in range(3))


class Texts:
    """Free text of a fake engine, which is known without asking."""

    #: Slow to load, so that an engine can be killed while it does.
    model = "fake:20:load_s=0.5"
    tokens = (20, 160)
    #: How often a request is read in each way, in parts of the sum.
    ways = {Way.STREAM: 70, Way.LATE: 10, Way.BESIDE: 10, Way.CANCELLED: 10}  # noqa: RUF012

    def reading(self, number: int, draw: random.Random) -> Reading:
        """A length and a way, both drawn."""
        (way,) = draw.choices(list(self.ways), list(self.ways.values()))
        return Reading(number, draw.randint(*self.tokens), way)

    def parameters(self, reading: Reading) -> dict[str, Any]:
        """A prompt of its own."""
        values = {"prompt": self._prompt(reading), "model": self.model}
        return {**values, "max_tokens": reading.tokens, "seed": reading.number}

    def wanted(self, reading: Reading) -> Wanted | None:
        """What the fake engine says."""
        return Wanted(fake_text(self._prompt(reading), reading.number, reading.tokens), reading.tokens, "length")

    def fault(self, _reading: Reading, _answer: Mapping[str, Any]) -> str | None:
        """None: the text says all."""
        return None

    @staticmethod
    def _prompt(reading: Reading) -> str:
        kind = reading.number % (2 * len(BEGINNINGS))
        return f"{BEGINNINGS[kind] if kind < len(BEGINNINGS) else ''}chaos {reading.number}"
