"""Groups and chords that one thread sends: all members of one, or none."""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.client.request.options import checked
from tasks.errors import GenerationError, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import redis
    from celery import Celery

    from tasks.broker.submission import Collector

logger = logging.getLogger("tasks.generate")


class Group:
    """The group that a thread is at, or was at last.

    Args:
        group_id: the outermost group's id; ``None`` for requests of none.
    """

    def __init__(self, group_id: str | None) -> None:
        self.group_id = group_id
        #: The members so far, those that were sent and those that were collected, with their places in the group.
        self.places: dict[str, Any] = {}
        #: What collects members, by the producer that Celery took for them.
        self.collectors: dict[int, Collector] = {}

    def require_new(self, task_id: Any, place: Any) -> None:
        """Refuse a second member with an id: it runs once, so a chord would wait for the other one for ever.

        The same place again is the same group, which is sent again.

        Raises:
            InvalidRequest: another member has this id.
        """
        if task_id is not None and self.places.get(str(task_id), place) != place:
            raise InvalidRequest(f"task_id={str(task_id)!r}: twice in one group: leave it out, or choose another id")


class _Thread(threading.local):
    group: Group | None = None


class Groups:
    """Sends the members of a group together, and takes those back that were sent before one that cannot be.

    Celery sends a group member by member, with one producer that it gives back behind the last: that is when what was collected
    goes out, unless it was so much that it went before. A member is told by its group's id. A group inside
    of a group, a chord's header and a chain that is a member belong to the outermost group.

    Args:
        app: where requests are sent.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._thread = _Thread()

    @contextmanager
    def member(self, options: Mapping[str, Any], producer: Any, task_id: Any) -> Iterator[Member]:
        """While one request is sent.

        Args:
            options: those of ``apply_async``.
            producer: the one that was given to it.
            task_id: the id that was given to it, if one was.

        Raises:
            GenerationError: the request cannot be sent; the message says what became of the others.
        """
        group = self._group_of(options)
        place = options.get("group_index")
        collector = self._collector(group, producer)
        try:
            if collector is None:
                checked({"producer": producer}, ())
            group.require_new(task_id, place)
            yield Member(collector or producer, group, place)
        except GenerationError as error:
            unsent = [task_id for sender in group.collectors.values() for task_id in sender.submission.clear()]
            self._take_back(group, unsent, error)
            raise
        if collector is not None and collector.submission.is_full:
            self._send(group, collector)

    def _group_of(self, options: Mapping[str, Any]) -> Group:
        group_id, group = outermost_group(options), self._thread.group
        if group is None or group_id is None or group_id != group.group_id:
            group = self._thread.group = Group(group_id)
        return group

    def _collector(self, group: Group, producer: Any) -> Collector | None:
        """What collects the members for which Celery has taken this producer from its pool."""
        # Kombu gives each producer that it hands out a ``release`` of its own, for this one time.
        if group.group_id is None or "release" not in getattr(producer, "__dict__", {}):
            return None
        from tasks.broker.submission import Collector

        collector = group.collectors.get(id(producer))
        if collector is None:
            collector = Collector(self._app, producer)
            group.collectors[id(producer)] = collector
            producer.release = partial(self._send_and_release, group, collector, producer.release)
        return collector

    def _send_and_release(self, group: Group, collector: Collector, release: Callable[[], None]) -> None:
        try:
            self._send(group, collector)
        finally:
            group.collectors = {key: other for key, other in group.collectors.items() if other is not collector}
            release()

    def _send(self, group: Group, collector: Collector) -> None:
        from tasks.broker.submission import Refused

        try:
            collector.submission.send(self._client)
        except Refused as refused:
            self._take_back(group, refused.unsent, refused.error)
            raise refused.error from None

    @cached_property
    def _client(self) -> redis.Redis:
        from tasks.server.connection import connect

        return connect(self._app)

    def _take_back(self, group: Group, unsent: Sequence[str], error: GenerationError) -> None:
        """Undo what was sent of a group, because of an error that then says so."""
        from tasks.broker.withdraw import withdraw

        self._thread.group = None
        never = set(unsent)
        task_ids = [task_id for task_id in group.places if task_id not in never]
        if not group.places:
            return
        count = f"{len(task_ids)} of its group before it"
        try:
            if task_ids:
                withdraw(self._app, task_ids)
                outcome = f"{count} had been sent and were taken back: send the group again, or in parts"
            else:
                outcome = "nothing of its group was sent"
        except GenerationError as trouble:
            logger.warning("%s could not be taken back (%s): %s", count, trouble, ", ".join(task_ids))
            outcome = f"{count} had been sent and could not be taken back"
        error.args = (f"{error}; {outcome}", *error.args[1:])


class Member(NamedTuple):
    """How a request of a group, or a single one, is sent: with this producer, at this place; then its id is noted."""

    producer: Any
    group: Group
    place: Any

    def note(self, task_id: str) -> None:
        """The request was sent, or collected."""
        self.group.places[task_id] = self.place


def outermost_group(options: Mapping[str, Any]) -> str | None:
    """The id of the group that is sent with this request, if any.

    Args:
        options: those of ``apply_async``. In a chain the last link is the group's member; a chord's body is a member of what the
            chord is in.
    """
    chain = options.get("chain")
    last = chain[0] if isinstance(chain, list | tuple) and chain else None
    carrier = _options_of(last) if last is not None else options
    group = carrier.get("group_id")
    while chord := carrier.get("chord"):
        carrier = _options_of(chord)
        group = carrier.get("group_id") or group
    return group if isinstance(group, str) else None


def _options_of(signature: Any) -> Mapping[str, Any]:
    """The options of a signature; none of what is not a signature, which is refused later."""
    options = signature.get("options") if isinstance(signature, dict) else None
    return options if isinstance(options, dict) else {}
