"""The terms on which a request is queued: the arguments of the script, beside the message itself."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.broker.message.fingerprint import fingerprint, kept_s
from tasks.broker.message.message import unpacked
from tasks.broker.message.prefix import prefixes_of
from tasks.errors import InvalidRequest
from tasks.names import ACCEPTED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tasks.broker.message.prefix import Prefix
    from worker_config.settings import Settings


class Terms(NamedTuple):
    """On which terms a request is queued; the defaults are those of one that was queued before.

    Attributes:
        floor: the bound of the queue where no limit is known; ``None`` for a request that was accepted before.
        fingerprint: empty where the message cannot be read, which its worker says; any fingerprint is taken then.
        kept_s: how long the fingerprint is kept.
        prefixes: the beginnings of its prompt, the longest first; none where the request goes to whichever worker is free.
        model: the model as it is named, and empty where it is not; ``None`` where that is not known.
    """

    floor: int | None = None
    fingerprint: str = ""
    kept_s: int = 0
    prefixes: tuple[Prefix, ...] = ()
    model: str | None = None

    @property
    def digests(self) -> str:
        """The prefixes' digests, with commas between."""
        return ",".join(prefix.digest for prefix in self.prefixes)


def terms_of(message: Mapping[str, Any], settings: Settings) -> Terms:
    """The terms of a message that a producer sends."""
    properties = message["properties"]
    body: Any = message["body"]
    try:
        if properties.get("body_encoding") == "base64":
            body = b64decode(body)
        compression = message["headers"].get("compression")
        if compression is not None:
            body = unpacked(body, compression)
    except (InvalidRequest, ValueError, TypeError):
        body = ""
    return terms_in(body, properties, settings)


def terms_in(body: str | bytes, properties: Mapping[str, Any], settings: Settings) -> Terms:
    """The terms of a message with this body, as text, and these properties."""
    try:
        args, values, _ = json.loads(body)
        digits = fingerprint(args[0] if args else None, values)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return Terms(floor=_floor(properties, settings))
    return _terms(digits, args, values, properties, settings)


def terms_for(
    args: Sequence[Any], values: Mapping[str, Any], properties: Mapping[str, Any], settings: Settings
) -> Terms:
    """The terms of a request with these arguments and keywords, which are plain JSON, and these properties."""
    return _terms(fingerprint(args[0] if args else None, values), args, values, properties, settings)


def _terms(
    digits: str, args: Sequence[Any], values: Mapping[str, Any], properties: Mapping[str, Any], settings: Settings
) -> Terms:
    # The answer of an earlier link in a chain becomes a part of the prompt that nobody else has.
    prefixes = prefixes_of(values, settings.default_model) if settings.affinity and not args else []
    model = values.get("model") or ""
    return Terms(
        floor=_floor(properties, settings),
        fingerprint=digits,
        kept_s=kept_s(settings),
        prefixes=tuple(prefixes),
        model=model if isinstance(model, str) else None,
    )


def _floor(properties: Mapping[str, Any], settings: Settings) -> int | None:
    return None if properties.get(ACCEPTED) else settings.queue_floor
