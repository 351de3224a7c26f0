"""An HTTP request as an order: the requests that it sends, and the values that its answer repeats."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pydantic import TypeAdapter, ValidationError

from tasks.client.request.fields import MAX_COUNT
from tasks.client.request.parameters import MAX_TOKENS_DEFAULT
from tasks.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind: TypeAlias = Literal["chat", "completion", "response", "embedding", "rerank"]

#: As many choices as OpenAI takes.
MAX_CHOICES = 128
#: The bytes of a prompt for each token, about: for limits, before it is tokenised.
BYTES_A_TOKEN = 4
#: A seed has 64 bits.
_SEEDS = 2**64
_WHOLE = TypeAdapter(int)


@dataclass(slots=True, frozen=True, kw_only=True)
class Order:
    """One answer: ``values`` are the parameters of each of its choices.

    ``background``: it is made whether or not anybody reads it. ``echo`` is what of the body the answer repeats.
    """

    kind: Kind
    model: str
    values: list[dict[str, Any]]
    stream: bool = False
    include_usage: bool = False
    background: bool = False
    service_tier: str = "auto"
    echo: dict[str, Any] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """The tokens that it may cost, by its length and ``max_tokens``."""
        if self.kind in ("embedding", "rerank"):
            return self.prompt_bytes // BYTES_A_TOKEN
        return self.prompt_bytes // BYTES_A_TOKEN + sum(map(_most_tokens, self.values))

    @property
    def prompt_bytes(self) -> int:
        """About how long the prompts are."""
        if self.kind == "rerank":
            (values,) = self.values
            query, documents = str(values.get("query")), values.get("documents")
            return len(str(documents)) + len(query) * (len(documents) if isinstance(documents, list) else 1)
        return sum(
            len(str(values.get("messages") or values.get("prompt") or values.get("input") or ""))
            for values in self.values
        )


def whole(value: Any) -> int | None:
    """The whole number that a value is, as the parameters of ``generate`` take it: 5, 5.0 and "5"; ``None`` where it is none."""
    try:
        return None if isinstance(value, bool) else _WHOLE.validate_python(value)
    except ValidationError:
        return None


def _most_tokens(values: Mapping[str, Any]) -> int:
    """Return how many tokens an answer may have; a value that is no number is refused later."""
    asked = next(
        (values[name] for name in ("max_tokens", "max_completion_tokens") if values.get(name) is not None), None
    )
    found = whole(asked)
    return MAX_TOKENS_DEFAULT if found is None else min(max(found, 0), MAX_COUNT)


def model_of(body: Mapping[str, Any], default: str) -> str:
    """The model that a body names, or the default one.

    Raises:
        InvalidRequest: it is no name.
    """
    model = body.get("model")
    if model is None:
        return default
    if not isinstance(model, str) or not model:
        raise InvalidRequest(f"model={model!r:.60}: use a name that /v1/models lists")
    return model


def number(body: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    """A whole number of a body.

    Raises:
        InvalidRequest: it is none, or out of bounds.
    """
    value = body.get(name)
    if value is None:
        return default
    found = whole(value)
    if found is None or not least <= found <= most:
        raise InvalidRequest(f"{name}={value!r:.60}: use {least} to {most}")
    return found


def flag(body: Mapping[str, Any], name: str) -> bool:
    """A truth value of a body; no by default.

    Raises:
        InvalidRequest: it is none.
    """
    value = body.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise InvalidRequest(f"{name}={value!r:.60}: use true or false")
    return value


def service_tier_of(body: Mapping[str, Any]) -> str:
    """OpenAI's ``service_tier``; ``auto`` by default.

    Raises:
        InvalidRequest: it is no text.
    """
    tier = body.get("service_tier")
    if tier is not None and not isinstance(tier, str):
        raise InvalidRequest(f"service_tier={tier!r:.60}: use auto, default, flex or priority")
    return tier or "auto"


def wants_usage(body: Mapping[str, Any], *, stream: bool) -> bool:
    """Whether the stream ends with a chunk that has the usage.

    Raises:
        InvalidRequest: ``stream_options`` has something else in it, or asks for that without a stream.
    """
    options = body.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        raise InvalidRequest(f"stream_options={options!r:.60}: use an object with include_usage")
    unknown = sorted(set(options) - {"include_usage", "include_obfuscation"})
    if unknown:
        raise InvalidRequest(f"stream_options.{unknown[0]:.60}: unknown; there is include_usage")
    asked = flag(options, "include_usage")
    if asked and not stream:
        raise InvalidRequest("stream_options: only with stream=true; leave it out")
    return asked


def several(values: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    """The same parameters so many times. With one seed all would be the same answer, so it counts up."""
    seed = whole(values.get("seed"))
    if seed is None or not -_SEEDS // 2 <= seed < _SEEDS:
        return [dict(values)] * count
    return [{**values, "seed": seed + n - (_SEEDS if seed + n >= _SEEDS else 0)} for n in range(count)]
