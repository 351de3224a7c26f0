"""Groups and chords that one thread sends: all members of one, or none."""

from __future__ import annotations

import logging
import threading
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Self

from tasks.client.request.options import checked
from tasks.errors import GenerationError, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import redis
    from celery import Celery

    from tasks.broker.submission.submission import Collector

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
        #: The collectors of members, by the producer that Celery took for them.
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

    def member(self, options: Mapping[str, Any], producer: Any, task_id: Any) -> Member:
        """One request, while it is sent.

        Args:
            options: those of ``apply_async``.
            producer: the one that was given to it.
            task_id: the id that was given to it, if one was.

        Raises:
            GenerationError: the request cannot be sent; the message says what became of the others.
        """
        group = self._group_of(options)
        return Member(self, group, producer, self._collector(group, producer), task_id, options.get("group_index"))

    def give_up(self, group: Group, error: GenerationError) -> None:
        """Take back what was sent of a group, and send nothing more of it, because of an error that then says so."""
        unsent = [task_id for sender in group.collectors.values() for task_id in sender.submission.clear()]
        self._take_back(group, unsent, error)

    def _group_of(self, options: Mapping[str, Any]) -> Group:
        group_id, group = outermost_group(options), self._thread.group
        if group is None or group_id is None or group_id != group.group_id:
            group = self._thread.group = Group(group_id)
        return group

    def _collector(self, group: Group, producer: Any) -> Collector | None:
        """The collector of the members for which Celery has taken this producer from its pool."""
        # Kombu gives each producer that it hands out a ``release`` of its own, for this one time.
        if group.group_id is None or "release" not in getattr(producer, "__dict__", {}):
            return None
        from tasks.broker.submission.submission import Collector

        collector = group.collectors.get(id(producer))
        if collector is None:
            collector = Collector(self._app, producer)
            group.collectors[id(producer)] = collector
            producer.release = partial(self._send_and_release, group, collector, producer.release)
        return collector

    def _send_and_release(self, group: Group, collector: Collector, release: Callable[[], None]) -> None:
        try:
            self.send(group, collector)
        finally:
            group.collectors = {key: other for key, other in group.collectors.items() if other is not collector}
            release()

    def send(self, group: Group, collector: Collector, *, waits: bool = True) -> None:
        """Send what was collected; if that cannot be, or what was sent before it could not be, take the group back.

        Args:
            group: its group.
            collector: what has collected it.
            waits: whether Redis's replies are waited for, or read with those to what is sent next.

        Raises:
            GenerationError: it cannot be sent.
        """
        from tasks.broker.submission.pages import Refused

        try:
            send = collector.submission.send if waits else collector.submission.begin
            send(self._client)
        except Refused as refused:
            self._take_back(group, refused.unsent, refused.error)
            raise refused.error from None

    @cached_property
    def _client(self) -> redis.Redis:
        from tasks.server.connection import connect

        return connect(self._app)

    def _take_back(self, group: Group, unsent: Sequence[str], error: GenerationError) -> None:
        """Undo what was sent of a group, because of an error that then says so."""
        from tasks.broker.inventory.withdraw import withdraw

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


class Member:
    """A request of a group, or a single one, while it is sent.

    Args:
        groups: sends and takes back the others.
        group: what it is a member of.
        given: the producer that was given with it.
        collector: what collects members, if that is how it is sent.
        task_id: the id that was given to it, if one was.
        place: in the group.
    """

    __slots__ = ("_given", "_group", "_groups", "_place", "_task_id", "collector")

    def __init__(
        self, groups: Groups, group: Group, given: Any, collector: Collector | None, task_id: Any, place: Any
    ) -> None:
        self._groups, self._group, self._given = groups, group, given
        self.collector = collector
        self._task_id, self._place = task_id, place

    @property
    def producer(self) -> Any:
        """The producer that sends it."""
        return self.collector or self._given

    def __enter__(self) -> Self:
        try:
            if self.collector is None:
                checked({"producer": self._given}, ())
            self._group.require_new(self._task_id, self._place)
        except GenerationError as error:
            self._groups.give_up(self._group, error)
            raise
        return self

    def note(self, task_id: str) -> None:
        """The request was sent, or collected."""
        self._group.places[task_id] = self._place

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, GenerationError):
            self._groups.give_up(self._group, error)
        elif error is None and self.collector is not None and self.collector.submission.is_full:
            self._groups.send(self._group, self.collector, waits=False)


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
