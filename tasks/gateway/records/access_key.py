"""An API key: the rights of its holder. The key itself is stored nowhere; its hash finds the record."""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Self

from tasks.client.request.options import LEAST_URGENT, MOST_URGENT
from tasks.messages.encoding import known_fields, to_compact_json

PREFIX = "cmlx-"
SHOWN_CHARACTERS = 12


@dataclass(slots=True, frozen=True, kw_only=True)
class AccessKey:
    """One key's record. A limit of 0 is none; without ``models`` it may use all.

    ``priority`` is the most urgent one that its requests get.
    """

    id: str
    name: str
    models: tuple[str, ...] = ()
    priority: int = MOST_URGENT
    requests_a_minute: int = 0
    tokens_a_minute: int = 0
    at_once: int = 0
    created: int = 0

    def allows(self, model: str) -> bool:
        """Whether its holder may use a model. The models are patterns in the shell's style."""
        return not self.models or any(fnmatchcase(model, pattern) for pattern in self.models)

    def most_urgent(self, asked: int | None) -> int:
        """The priority of a request that asks for this one."""
        return max(self.priority, min(LEAST_URGENT, asked if asked is not None else self.priority))

    def encode(self) -> str:
        """The record as JSON."""
        return to_compact_json(asdict(self))

    @classmethod
    def decode(cls, text: str | bytes) -> Self:
        """The record out of JSON; fields of later versions are left out."""
        values = known_fields(cls, json.loads(text))
        return cls(**{**values, "models": tuple(values.get("models", ()))})


#: The key of clients that need none: those on this machine, if the gateway listens on loopback alone.
LOCAL = AccessKey(id="local", name="this machine")


def new_key() -> str:
    """A key that nobody can guess: 256 random bits, so that a plain hash is enough to hide it."""
    return PREFIX + secrets.token_urlsafe(32)


def digest_of(key: str) -> str:
    """Return the digest that is stored in the place of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def id_of(key: str) -> str:
    """Return the name of a key for people."""
    return digest_of(key)[:SHOWN_CHARACTERS]
