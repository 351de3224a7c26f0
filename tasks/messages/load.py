"""The messages of an engine about its load, before the first step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.messages.memory import KvSize

#: How rows are computed beside each other: padded to the longest; with equal counts, so that none is padded; or one by one.
Batching: TypeAlias = Literal["padded", "equal", "apart"]


@dataclass(slots=True, frozen=True)
class Loading:
    """The progress of a load: a fraction between 0 and 1, or ``None`` where it cannot be known."""

    fraction: float | None
    about: str


@dataclass(slots=True, frozen=True, kw_only=True)
class Ready:
    """The model is loaded. ``kv`` is the size of one request's KV cache.

    ``sampling`` are the fields of :class:`tasks.messages.engine.Sampling` that the model's generation_config.json sets.
    ``batching`` is how its rows are computed, and ``batching_why`` why not in a quicker way.
    """

    model: str
    revision: str
    context_tokens: int
    weights_bytes: int
    kv: KvSize
    accelerator: Literal["metal", "cuda", "cpu", "fake"]
    blas: str
    load_s: float
    pid: int
    sampling: Mapping[str, float] = field(default_factory=dict)
    batching: Batching = "padded"
    batching_why: str = ""


@dataclass(slots=True, frozen=True)
class LoadFailed:
    """The model cannot be served. ``code`` is a wire code of :mod:`tasks.errors`."""

    code: str
    message: str
