"""Names that several layers need."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


#: This package: ``tasks`` in a checkout, ``celery_mlx`` where the distribution is installed or goes by its own name.
PACKAGE = __name__.rpartition(".")[0]
#: The beginning of its commands, as people type them.
COMMAND = f"celery -A {PACKAGE}"
#: The inference tasks, as Celery knows them.
GENERATE = "tasks.generate"
EMBED = "tasks.embed"
RERANK = "tasks.rerank"
#: All tasks of this project that a worker answers with an engine.
OURS = frozenset({GENERATE, EMBED, RERANK})
#: A property of messages that a worker sends after a task. They were accepted with that task, so no queue is too full for them.
ACCEPTED = "accepted"


def is_ours(task: object) -> bool:
    """Whether this is the name of a task of this project, whose messages follow our rules."""
    return task in OURS


def has_others(tasks: Iterable[str]) -> bool:
    """Whether an application has tasks beside this project's and Celery's."""
    return any(not is_ours(task) and not task.startswith("celery.") for task in tasks)
