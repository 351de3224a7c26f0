"""An entry of the model catalogue, and the forms of the names that lead to a model."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker_config.tiers import Tier

Kind: TypeAlias = Literal["hub", "path", "bundled", "fake"]

BUNDLED_PREFIX = "bundled:"
FAKE_PREFIX = "fake:"

#: The fields of a request that a catalogue entry may set for requests that lack them: those that shape the answer.
DEFAULT_FIELDS = frozenset(
    {
        "chat_template_kwargs",
        "dimensions",
        "frequency_penalty",
        "input_type",
        "logit_bias",
        "logprobs",
        "max_tokens",
        "min_p",
        "presence_penalty",
        "reasoning_effort",
        "repetition_context_size",
        "repetition_penalty",
        "seed",
        "stop",
        "temperature",
        "top_k",
        "top_logprobs",
        "top_p",
    }
)
# The hub's own rule for an id. It lets nothing through that could leave a folder.
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """One model that a request may name.

    Args:
        name: its name in requests.
        kind: where it comes from, which says how to read ``source``.
        source: a hub id for ``hub``, an absolute path for ``path``, the name behind ``bundled:`` for ``bundled``, and
            milliseconds per step, as text, for ``fake``.
        parameters_b: billions of parameters in all, experts included; ``None`` where the catalogue does not say.
        context_tokens: the longest context, prompt and answer together; ``None`` where the model's own files decide.
        chat_template: the name of one of the model's chat templates; ``None`` for its default.
        tier: the tier it is pinned to, regardless of its size.
        defaults: values for fields that a request leaves out.
        revision: the hub revision to load; ``None`` is the newest.
        trust_remote_code: whether the model's own Python code may run. It never may unless the catalogue says so.
        keep_alive_s: how long its engine may idle, instead of the setting; 0 means for ever.
        adapters: LoRA adapters by the name that a request puts behind an @: hub ids or absolute paths.
        adapter: the one that is used, of the same form.
        prompts: the words before a text for an embedding model, by a request's ``input_type``; overrides the model's own files.
    """

    name: str
    kind: Kind
    source: str
    parameters_b: float | None = None
    context_tokens: int | None = None
    chat_template: str | None = None
    tier: Tier | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict, hash=False)
    revision: str | None = None
    trust_remote_code: bool = False
    keep_alive_s: float | None = None
    adapters: Mapping[str, str] = field(default_factory=dict, hash=False)
    adapter: str | None = None
    prompts: Mapping[str, str] = field(default_factory=dict, hash=False)


def is_hub_id(text: str) -> bool:
    """Whether this has the form of a hub id, one owner and one name; none can leave a folder."""
    return bool(_HUB_ID.fullmatch(text)) and ".." not in text and "--" not in text and not text.endswith((".", "-"))


def looks_like_path(text: str) -> bool:
    """Whether this is meant as a path: it begins with ``/``, ``~``, ``./`` or ``../``."""
    return text.startswith(("/", "~", "./", "../")) or text in {".", ".."}
