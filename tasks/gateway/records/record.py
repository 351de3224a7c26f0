"""The record of an HTTP request, with which any gateway can go on with its answer."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from tasks.messages.encoding import known_fields, to_compact_json


@dataclass(slots=True, frozen=True, kw_only=True)
class Record:
    """One request: ``id`` is the answer's, and the task id of its first choice.

    ``owner`` is the API key's id, ``reserved`` the tokens that were taken from its limit until the usage is known.
    """

    id: str
    kind: str
    model: str
    created: int
    choices: int = 1
    include_usage: bool = False
    background: bool = False
    owner: str = ""
    reserved: int = 0
    echo: dict[str, Any] = field(default_factory=dict)

    @property
    def task_ids(self) -> list[str]:
        """The task of each choice."""
        return [self.id, *(f"{self.id}-{n}" for n in range(1, self.choices))]

    def encode(self) -> str:
        """The record as JSON."""
        return to_compact_json(asdict(self))

    @classmethod
    def decode(cls, text: str | bytes) -> Self:
        """The record out of JSON; fields of later versions are left out."""
        return cls(**known_fields(cls, json.loads(text)))
