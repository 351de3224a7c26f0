"""A reader's place in one request's journal: published and read entries become one order of events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from tasks.client.reader.chunks import Assembly, Chunk, Outcome
from tasks.errors import GenerationError
from tasks.messages.journal import decode
from tasks.server import keys
from tasks.server.resp import fields_of
from tasks.server.watch import NEVER, Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tasks.server.watch import Command

#: A stream that is not there at the first look is looked for again soon: it may have expired, then its result is stored.
SECOND_LOOK_S = 0.05
#: The silence after which a stream is read again; it grows while nothing comes of it (pub/sub is at most once).
QUIET_S, LONGEST_QUIET_S = 1.0, 5.0
ENTRIES_AT_ONCE = 1_000


@dataclass(slots=True, frozen=True)
class Quiet:
    """The stream was read and held nothing new, or could not be read, because of ``problem``.

    ``asked``: it was read after :meth:`Watch.read_again`. ``known``: whether the request is in the ledger or has a stream;
    ``None`` where this client may not look into the ledger.
    """

    asked: bool = False
    problem: str = ""
    known: bool | None = None


Event: TypeAlias = Outcome | Quiet | GenerationError


class JournalWatch(Watch):
    """Follows one request's stream from its start.

    Args:
        task_id: the request.
        sink: takes events, in order, on the subscription's thread; it must not block.
        database: the database that the request is in.
        page: how many entries are read at once.
    """

    def __init__(
        self, task_id: str, sink: Callable[[list[Event]], None], database: int = 0, page: int = ENTRIES_AT_ONCE
    ) -> None:
        self.stream = keys.stream(task_id)
        super().__init__(keys.channel_prefix(database) + self.stream, f"request {task_id}")
        self.assembly = Assembly()
        self.events: list[Event] = []
        self.last_id: str | None = None
        self.whole = True
        self.reads = 0
        self.quiet_s = QUIET_S
        self._task_id = task_id
        self._sink = sink
        self._page = page
        self._is_there = False

    def decode(self, payload: bytes) -> Any:
        """A journal's entry."""
        return decode(payload)

    def hear(self, news: Any, now: float) -> None:
        """Take an entry that was published."""
        self._is_there = True
        assembly = self.assembly
        self._keep(assembly.hear(news))
        self.quiet_s = QUIET_S
        self.due_at = now if assembly.gap or assembly.rewritten else now + QUIET_S
        if assembly.rewritten:
            self.forget()

    def forget(self) -> None:
        """Read the stream from its start the next time: Redis may have come back with another one."""
        self.last_id, self.whole, self.assembly.rewritten = None, True, False

    def ask(self, now: float) -> list[Command]:
        """Return the commands that read the entries after the last one, the newest id, and whether the request is submitted."""
        after = f"({self.last_id}" if self.last_id else "-"
        commands: list[Command] = [("XRANGE", self.stream, after, "+", "COUNT", self._page)]
        if self.last_id:
            commands.append(("XREVRANGE", self.stream, "+", "-", "COUNT", 1))
        self.essential = len(commands)
        if self.reads and not self._is_there:
            commands.append(("HEXISTS", keys.LEDGER, self._task_id))
        return commands

    def take(self, replies: Sequence[Any], now: float) -> None:
        """Take what the stream holds after ``last_id``, and its last entry's id, which shows that it was written again."""
        entries = replies[0]
        last = replies[1] if self.last_id else entries[-1:]
        newest = last[0][0] if last else None
        self.reads += 1
        self.assembly.gap = False
        before = len(self.events)
        for _, fields in entries:
            entry = decode(fields_of(fields).get(b"d", b""))
            if entry is not None:
                self._keep(self.assembly.read(entry, whole=self.whole))
        self._is_there = newest is not None
        if entries:
            self.last_id = entries[-1][0].decode()
        if len(entries) == self._page:
            self.due_at = now
        elif self.assembly.gap or self.assembly.rewritten or self._was_rewritten(newest):
            self.forget()
            self.due_at = now
        else:
            self.whole = self.last_id is None
            self._rest(news=len(self.events) > before, now=now, known=self._is_known(replies))

    def trouble(self, problem: str, now: float) -> None:
        """Have the reader know it."""
        self.events.append(Quiet(problem=problem))

    def end(self, error: GenerationError) -> None:
        """Have the reader raise it."""
        self.events.append(error)
        self.due_at = NEVER

    @property
    def is_done(self) -> bool:
        """Whether the journal has ended. Later events do not count: they repeat entries that were read."""
        return self.assembly.ended

    @property
    def can_wait(self) -> bool:
        """Tokens can; an end, an error, and that nothing comes cannot."""
        last = self.events[-1] if self.events else None
        return isinstance(last, Chunk) and last.finish_reason is None

    def deliver(self) -> bool:
        """Hand over the events."""
        if not self.events:
            return False
        events, self.events = self.events, []
        self._sink(events)
        return True

    def _keep(self, outcome: Outcome | None) -> None:
        if outcome is not None:
            self.events.append(outcome)

    def _is_known(self, replies: Sequence[Any]) -> bool | None:
        if self._is_there:
            return True
        found = replies[self.essential] if len(replies) > self.essential else None
        return None if found is None or isinstance(found, Exception) else bool(found)

    def _was_rewritten(self, newest: bytes | None) -> bool:
        """Whether this is another stream than the one that was read: Redis had lost it."""
        if self.last_id is None:
            return False
        return newest is None or _order(newest) < _order(self.last_id.encode())

    def _rest(self, *, news: bool, now: float, known: bool | None) -> None:
        if news:
            self.quiet_s = QUIET_S
        elif self.reads == 1 and not self.asked:
            self.due_at = now + SECOND_LOOK_S
            return
        else:
            self.events.append(Quiet(self.asked, known=known))
        self.due_at = now + self.quiet_s
        self.quiet_s = min(self.quiet_s * 1.5, LONGEST_QUIET_S)


def _order(entry_id: bytes) -> tuple[int, int]:
    attempt, _, n = entry_id.partition(b"-")
    return int(attempt), int(n)
