"""Fetches messages: by room and by priority, and within bounds."""

from __future__ import annotations

from functools import lru_cache
from queue import Empty
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from kombu.utils.encoding import bytes_to_str

from tasks.broker import scripts
from tasks.broker.channel.holding import NO_CLAIMS
from tasks.broker.channel.queueing import QueueingChannel
from tasks.broker.inventory.contents import ledger_message
from tasks.broker.message.message import (
    MAX_CONTROL_BYTES,
    MAX_MESSAGE_BYTES,
    blames_message,
    fault,
    id_in,
    message_value,
    require_size,
)
from tasks.broker.queues.queues import aside_list
from tasks.broker.queues.references import referred, with_references
from tasks.errors import InvalidRequest
from tasks.journal.scripts import CLAIMING
from tasks.server import keys
from tasks.server.resp import pack
from tasks.server.script import Script
from tasks.server.wire import bound_by_system

if TYPE_CHECKING:
    from collections.abc import Sequence


#: The number of fetches after which the lowest priority is asked first, so that a steady stream of urgent work starves none.
FAIRNESS_PERIOD = 8

#: The most further messages of a list that are taken with one; fewer leave more to others.
MOST_MORE = 8
MOST_MORE_BYTES = 256 * 1024

FETCH = Script(with_references("holding") + CLAIMING + scripts.source("fetch"))
#: The number of values that the script returns for each message.
_PARTS = 6

#: The same few lists are asked for again and again.
_packed = lru_cache(maxsize=64)(pack)


class Channel(QueueingChannel):
    """A channel that fetches by room and priority."""

    _client_id: int | None = None
    _client_sock: Any = None
    _asked: frozenset[str] = frozenset()
    _fetches = 0
    _taking = False

    #: Whether a consumer acknowledges what it takes: a worker does, and what listens for replies or events does not.
    acknowledges = False

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **options: Any) -> Any:
        """Begin to consume a queue."""
        self.acknowledges = self.acknowledges or not no_ack
        return super().basic_consume(queue, no_ack, *args, **options)

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Ask for one message of the queues that have room, by priority; for none where there is no room."""
        queues = self._queue_cycle.consume(len(self.active_queues))
        steps: Sequence[int] = self.priority_steps
        if (self._fetches + 1) % FAIRNESS_PERIOD == 0:
            steps = list(reversed(steps))
        names = self._wanted(queues, steps)
        if not names:
            return
        self._fetches += 1
        connection = self.client.connection
        self._prepare(connection)
        self._in_poll = connection
        self._asked = frozenset(names)
        self._brpop_sent_at = monotonic()
        command = ["BRPOP", *names, timeout or self.brpop_timeout or 0]
        if self.global_keyprefix:
            command = self.client._prefix_args(command)
        connection.send_packed_command([_packed(*command)])

    def _brpop_read(self, **options: Any) -> bool:
        """Take the message that has come, and some more that wait beside it: a fetch costs more than a message does."""
        self._taking = True
        try:
            queue, item = self._fetched(options)
            if referred(item) is None:
                self._receive_text(item, queue, MAX_MESSAGE_BYTES)
                self.holding.received += 1
                item = b""
            more = self._more_of(queue, taken=1 if item else 0)
            if item or more:
                self._fetch(item.decode(errors="replace"), more, queue)
            return True
        finally:
            self._taking = False

    def _fetched(self, options: dict[str, Any]) -> tuple[str, bytes]:
        """Return the reply to the BRPOP that is out: the queue, and the message's text, or a reference to it.

        Raises:
            Empty: nothing.
        """
        try:
            answer = self.client.parse_response(self.client.connection, "BRPOP", **options)
        except self.connection_errors:
            self.client.connection.disconnect()
            raise
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        if not answer:
            raise Empty
        name = answer[0].decode()
        if self.holding.lanes is not None:
            self.holding.lanes.took(name)
        queue = name.rsplit(self.sep, 1)[0]
        self._queue_cycle.rotate(queue)
        return queue, answer[1]

    def _more_of(self, queue: str, taken: int) -> int:
        """Return for how many further messages of a queue there is room, behind so many that are not counted yet."""
        room = self.holding.room
        if self.holding.scripts is None or room is None or queue not in self.active_queues:
            return 0
        if room.in_use() < 2:  # behind one that came alone there is hardly ever another
            return 0
        return min(room.free(queue) - taken, MOST_MORE)

    def _fetch(self, reference: str, more: int, queue: str) -> None:
        """Hand on the message that a reference stands for, if its request has not been claimed meanwhile, and some more."""
        holding = self.holding
        lists = (
            [name for step in self.priority_steps for name in self._lists(queue, step, own=True)] if more > 0 else []
        )
        # Run twice it would take others, and leave the first ones held by a worker that does not run them. Once it may have run,
        # its error ends the connection, and what this worker holds and does not run goes back to its queue.
        evaluator = holding.scripts.once if holding.scripts is not None else self.evaluator
        terms = holding.claims.terms(queue) if holding.claims is not None else NO_CLAIMS
        noted = (self.unacked_key, self.unacked_index_key, keys.LEDGER)
        names = (*noted, keys.WORKERS, keys.OWNERS, *lists)
        limits = (max(0, more), MOST_MORE_BYTES, MAX_MESSAGE_BYTES)
        found = FETCH(evaluator, names, (holding.identity, reference, *limits, *terms))
        if reference and not (found and found[2] < 0):
            holding.received += 1
        for tag, message, index, task_id, claim, queued_ms in zip(
            *(found[n::_PARTS] for n in range(_PARTS)), strict=True
        ):
            if index >= 0 and holding.lanes is not None:
                holding.lanes.took(lists[index])
            if task_id and holding.claims is not None:
                holding.claims.note(task_id.decode(), tag.decode(), claim, queued_ms)
            self._hand_on(tag.decode(), message, queue)

    def _get(self, queue: str) -> dict[str, Any]:
        """A message for ``basic_get``.

        Raises:
            Empty: there is none.
        """
        with self.conn_or_acquire() as client:
            for step in self.priority_steps:
                while item := client.rpop(self._q_for_pri(queue, step)):
                    task_id = referred(item)
                    message = (
                        message_value(item.decode())
                        if task_id is None
                        else ledger_message(client.hget(keys.LEDGER, task_id))
                    )
                    if message:
                        return cast("dict[str, Any]", message)
        raise Empty

    def _receive_one(self, c: Any) -> bool | None:
        """Take one broadcast. Kombu lets JSON that is nested too deeply end the worker."""
        try:
            response = c.parse_response()
        except self.connection_errors:
            self._in_listen = None
            raise
        if not isinstance(response, list | tuple):
            return None
        payload = self._handle_message(c, response)
        if not bytes_to_str(payload["type"]).endswith("message") or not payload["data"]:
            return None
        topic = bytes_to_str(payload["channel"])
        exchange = (topic.partition(".")[2] if topic[0] == "/" else topic).split("/", 1)[0]
        self._receive_text(payload["data"], self._fanout_to_queue.get(exchange, ""), MAX_CONTROL_BYTES)
        return True

    def _receive_text(self, text: bytes, queue: str, most_bytes: int) -> None:
        """Hand on a message. Nothing in it may end the worker: the next worker would take it and end, too."""
        try:
            require_size("message", len(text), most_bytes)
            message = message_value(text.decode())
        except InvalidRequest as error:
            self.holding.refuse(id_in(text), str(error))
        except Exception as error:
            if not blames_message(error, self.connection):
                raise
            self.holding.refuse(id_in(text), f"not the JSON of a message ({fault(error)})")
        else:
            self.connection._deliver(message, queue)

    def _hand_on(self, tag: str, message: bytes, queue: str) -> None:
        """Deliver a message that the script has noted under this tag, if any; it is not held if it goes no further."""
        taken = self.holding.taken
        taken.add(tag)
        try:
            self._receive_text(message, queue, MAX_MESSAGE_BYTES)
            self.holding.received += 1
            if tag and tag in taken:
                self.qos.drop(tag)
        finally:
            taken.discard(tag)

    def _wanted(self, queues: Sequence[str], steps: Sequence[int]) -> list[str]:
        """The lists of these queues, at these priorities, for whose messages there is room now."""
        room, lowest = self.holding.room, self.priority_steps[-1]
        free = {
            (queue, urgent): room is None or room.has_room(queue, urgent=urgent)
            for queue in queues
            for urgent in (False, True)
        }
        return [
            name
            for step in steps
            for queue in queues
            if free[queue, step < lowest]
            for name in self._lists(queue, step)
        ]

    def _lists(self, queue: str, step: int, *, own: bool = False) -> list[str]:
        """The Redis lists of a queue at one priority that are asked for now, in their order.

        Args:
            queue: the queue.
            step: the priority.
            own: whether the lanes of other workers are left out.
        """
        common = str(self._q_for_pri(queue, step))
        if self.holding.room is None:
            return [common]
        first, last = self.holding.room.aside_lists(queue)
        lanes = self.holding.lanes
        before, after = lanes.beside(queue, step, own=own) if lanes is not None else ((), ())
        return [
            *(aside_list(queue, step, model) for model in first),
            *before,
            common,
            *after,
            *(aside_list(queue, step, model) for model in last),
        ]

    def _prepare(self, connection: Any) -> None:
        """Ask the server for the number of the fetching connection, once for each of its sockets, and bound its waits."""
        if connection._sock is not self._client_sock:
            connection.send_command("CLIENT", "ID")
            self._client_id = int(connection.read_response())
            self._client_sock = connection._sock
            bound_by_system(connection._sock)

    def refetch(self) -> None:
        """Make a fetch that is out return at once if it asks for other lists than there is room for now.

        UNBLOCK answers the BRPOP as its time-out would, so nothing that was popped is lost. For the consumer's thread.
        """
        if not self._in_poll or self._client_id is None or self.holding.room is None:
            return
        wanted = set(self._wanted(list(self.active_queues), self.priority_steps))
        if wanted != self._asked:
            self._asked = frozenset(wanted)
            with self.conn_or_acquire() as client:
                client.execute_command("CLIENT UNBLOCK", self._client_id)

    @property
    def fetching(self) -> bool:
        """Whether a fetch is out, which may still bring a message."""
        return bool(self._in_poll) or self._taking
