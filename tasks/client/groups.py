"""What one thread sends of a group or chord: all of it, or nothing."""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tasks.errors import GenerationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from celery import Celery

logger = logging.getLogger("tasks.generate")


class _Sent(threading.local):
    """The requests of the group that this thread is at, or was last."""

    group: str | None = None
    task_ids: list[str]


class Groups:
    """Takes the members of a group back that were sent before one that cannot be.

    Celery sends a group member by member and says nothing of the others: this tells by the group's id, which each of them has.
    A group inside of a group, a chord's header and a chain that is a member belong to the outermost group.

    Args:
        app: where requests are sent.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._sent = _Sent()

    @contextmanager
    def member(self, options: Mapping[str, Any]) -> Iterator[list[str]]:
        """While one request is sent; its id is to be added to what this yields.

        Raises:
            GenerationError: the request cannot be sent; the message says that the others were taken back.
        """
        group = outermost_group(options)
        if group is None or group != self._sent.group:
            self._sent.group, self._sent.task_ids = group, []
        try:
            yield self._sent.task_ids
        except GenerationError as error:
            task_ids, self._sent.group = self._sent.task_ids, None
            if task_ids:
                self._take_back(task_ids, error)
            raise

    def _take_back(self, task_ids: list[str], error: GenerationError) -> None:
        from tasks.broker.withdraw import withdraw

        count = f"{len(task_ids)} of its group before it"
        try:
            withdraw(self._app, task_ids)
            outcome = f"{count} had been sent and were taken back: send the group again, or in parts"
        except GenerationError as trouble:
            logger.warning("%s could not be taken back (%s): %s", count, trouble, ", ".join(task_ids))
            outcome = f"{count} had been sent and could not be taken back"
        error.args = (f"{error}; {outcome}", *error.args[1:])


def outermost_group(options: Mapping[str, Any]) -> str | None:
    """The id of the group that is sent with this request, if any.

    Args:
        options: those of ``apply_async``. In a chain the last link is the group's member; a chord's body is a member of what the
            chord is in.
    """
    chain = options.get("chain")
    carrier = chain[0]["options"] if chain else options
    group = carrier.get("group_id")
    while chord := carrier.get("chord"):
        carrier = chord["options"]
        group = carrier.get("group_id") or group
    return group if isinstance(group, str) else None
