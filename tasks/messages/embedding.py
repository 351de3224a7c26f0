"""The messages between a worker and an engine process about vectors and scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tasks.messages.engine import Isolation


@dataclass(slots=True, frozen=True, kw_only=True)
class Embed:
    """Make one vector of each input, which is a text or the ids of its tokens.

    ``prompt`` stands before each text; ``None`` has the model's own prompt of this ``input_type`` stand there. ``dimensions``
    keeps the first numbers of each vector alone. ``isolate`` and ``again`` are as in :class:`tasks.messages.engine.Submit`.
    """

    task_id: str
    inputs: tuple[str | tuple[int, ...], ...]
    input_type: str | None = None
    prompt: str | None = None
    dimensions: int | None = None
    isolate: Isolation = ""
    again: bool = False
    op: Literal["embed"] = "embed"


@dataclass(slots=True, frozen=True, kw_only=True)
class Rerank:
    """Make one score of the query and each document. ``isolate`` and ``again`` are as in :class:`Embed`."""

    task_id: str
    query: str
    documents: tuple[str, ...]
    isolate: Isolation = ""
    again: bool = False
    op: Literal["rerank"] = "rerank"


@dataclass(slots=True, frozen=True)
class Embedded:
    """The end of an :class:`Embed`: the vectors in the order of the inputs, as 32-bit floats of this machine.

    Of a :class:`Rerank` each is one number, the score of a document.
    """

    task_id: str
    prompt_tokens: int
    dimensions: int
    vectors: bytes
