"""What a request's message asks for, as far as the script that queues it has to know."""

from __future__ import annotations

import json
from base64 import b64decode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.broker.fingerprint import fingerprint
from tasks.broker.message import unpacked
from tasks.broker.prefix import prefixes_of
from tasks.errors import InvalidRequest
from worker_config.settings import current_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.broker.prefix import Prefix


@dataclass(frozen=True, slots=True)
class Asked:
    """``fingerprint`` is empty where the message cannot be read, which its worker says.

    ``prefixes`` are the beginnings of its prompt, the longest first; none where the request goes to whichever worker is free.
    """

    fingerprint: str = ""
    prefixes: tuple[Prefix, ...] = ()


#: Nothing that the script has to look at.
NOTHING = Asked()


def asked_of(message: Mapping[str, Any]) -> Asked:
    """What a request's message asks for."""
    try:
        body: Any = message["body"]
        if message["properties"].get("body_encoding") == "base64":
            body = b64decode(body)
        compression = message["headers"].get("compression")
        if compression is not None:
            body = unpacked(body, compression)
        args, values, _ = json.loads(body)
        digits = fingerprint(args[0] if args else None, values)
    except (InvalidRequest, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return NOTHING
    settings = current_settings()
    # The answer of an earlier link in a chain becomes a part of the prompt that nobody else has.
    prefixes = prefixes_of(values, settings.default_model) if settings.affinity and not args else []
    return Asked(digits, tuple(prefixes))
