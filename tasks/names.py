"""Names that several layers need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.errors import BrokerMisconfigured

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


def require_own(app: Any, name: str) -> None:
    """Make sure that an application has no other task of this name of ours: its function ``generate`` in ``tasks.py`` gets it.

    Celery keeps the first one, warns, and gives it to whoever asks for either.

    Raises:
        BrokerMisconfigured: there is one.
    """
    if name not in app._duplicate_task_names_warned:
        return
    function = name.rpartition(".")[2]
    raise BrokerMisconfigured(
        f"{name} is the name of a task of celery-mlx, and of one of your application {app.main!r}, which Celery gives to a "
        f"function {function} in tasks.py: give yours another, as in @app.task(name='{app.main}.{function}')",
        "Another `tasks`",
    )


def has_others(tasks: Iterable[str]) -> bool:
    """Whether an application has tasks beside this project's and Celery's."""
    return any(not is_ours(task) and not task.startswith("celery.") for task in tasks)
