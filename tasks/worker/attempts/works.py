"""The work of each task of this project."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.names import EMBED, GENERATE, RERANK
from tasks.worker.attempts.embedding import Embedding
from tasks.worker.attempts.generation import Generation
from tasks.worker.attempts.reranking import Reranking

if TYPE_CHECKING:
    from tasks.worker.attempts.work import AnyWork

_WORKS: dict[str, AnyWork] = {GENERATE: Generation(), EMBED: Embedding(), RERANK: Reranking()}


def work_of(task_name: str) -> AnyWork:
    """The work of a task of this project, by its name."""
    return _WORKS[task_name]
