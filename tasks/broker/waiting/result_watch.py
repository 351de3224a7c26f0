"""One caller's place at one stored result: it is heard of when it is stored, and looked for where nothing is heard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.broker.waiting.absence import Absence
from tasks.errors import UnknownRequest
from tasks.messages.journal import End, Error, decode
from tasks.server import keys
from tasks.server.resp import fields_of
from tasks.server.watch import NEVER, Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tasks.errors import GenerationError
    from tasks.server.watch import Command

#: A result that nothing is heard of is looked for so often, growing while nothing comes of it (pub/sub is at most once).
QUIET_S, LONGEST_QUIET_S = 1.0, 5.0
#: A request that was known, and of which nothing is stored any more, is given up after so long: its result was forgotten or has
#: expired, or Redis lost it. Between a journal's end and its result there may be a worker's death, and another one's turn.
LOST_AFTER_S = 60.0


class ResultWatch(Watch):
    """Follows one result.

    Args:
        task_id: whose it is.
        key: where it is stored, and announced.
        news: called when something has changed, on the subscription's thread.
        unknown_after_s: a request that is in no ledger and has no journal is unknown after so long; 0 means never.

    Attributes:
        task_id: whose it is.
        payload: the stored result, if there is one.
        error: why nothing will come any more.
        problem: why nothing comes just now.
        reads: how often Redis has answered.
    """

    def __init__(
        self, task_id: str, key: str, news: Callable[[ResultWatch], None], unknown_after_s: float = 0.0
    ) -> None:
        super().__init__(key, f"result of {task_id}")
        self.payload: bytes | None = None
        self.error: GenerationError | None = None
        self.problem = ""
        self.reads = 0
        self.task_id = task_id
        self._key = key
        self._news = news
        self._unknown_after_s = unknown_after_s
        self._absence = Absence()
        self._was_known = False
        self._has_changed = False
        self._quiet_s = QUIET_S

    def decode(self, payload: bytes) -> Any:
        """The payload: the caller's thread decodes it."""
        return payload

    def hear(self, news: Any, now: float) -> None:
        """A result of this id was stored, perhaps in another database: a server's channels are the same in all. It is read."""
        self.due_at = now

    def ask(self, now: float) -> list[Command]:
        """Read the stored result; where there is none, find out whether the request is known at all."""
        commands: list[Command] = [("GET", self._key)]
        if self._unknown_after_s and self.reads and self.payload is None:
            commands.append(("HEXISTS", keys.LEDGER, self.task_id))
            commands.append(("XREVRANGE", keys.stream(self.task_id), "+", "-", "COUNT", 1))
        return commands

    def take(self, replies: Sequence[Any], now: float) -> None:
        """Take the stored result, or note that there is none."""
        self.reads += 1
        self._has_changed = self._has_changed or self.reads == 1 or bool(self.problem)
        self.problem = ""
        if replies[0] is not None:
            self._note_result(replies[0], now)
            return
        self.due_at = now + self._quiet_s
        self._quiet_s = min(self._quiet_s * 1.5, LONGEST_QUIET_S)
        if len(replies) > 1 and not any(isinstance(reply, Exception) for reply in replies):
            self._note_absence(replies[1], replies[2], now)

    def forget(self) -> None:
        """Do nothing: the stored result is read anyway."""

    def trouble(self, problem: str, now: float) -> None:
        """Note why nothing comes."""
        self._has_changed = self._has_changed or not self.problem
        self.problem = problem
        self._absence.interrupt(now)

    def end(self, error: GenerationError) -> None:
        """Note why nothing will come."""
        self.error, self.due_at, self._has_changed = error, NEVER, True

    def deliver(self) -> bool:
        """Wake the caller, which looks at the changes."""
        if not self._has_changed:
            return False
        self._has_changed = False
        self._news(self)
        return True

    def expect(self, *, is_known: bool = False) -> None:
        """Begin again: the request is yet to be sent, or is in some message. For the caller's thread."""
        self._was_known = self._was_known or is_known
        self._absence.end()
        self.error, self.due_at = None, 0.0

    def _note_result(self, payload: bytes, now: float) -> None:
        self._absence.end()
        self._quiet_s = QUIET_S
        self.due_at = now + self._quiet_s
        if payload != self.payload:
            self.payload = payload
            self._has_changed = True

    def _note_absence(self, submitted: int, newest: Sequence[Any], now: float) -> None:
        """Something of a request is in Redis from its ``delay`` on: ledger entry, then journal, then result."""
        last = decode(fields_of(newest[0][1]).get(b"d", b"")) if newest else None
        if submitted or (newest and not isinstance(last, End | Error)):
            self._was_known = True
            self._absence.end()
            return
        self._was_known = self._was_known or bool(newest)
        self._absence.note(now)
        left_s = self._absence.left_s(now, LOST_AFTER_S if self._was_known else self._unknown_after_s)
        if left_s > 0:
            self.due_at = min(self.due_at, now + left_s)
        elif newest:
            self.end(UnknownRequest(forgotten(self.task_id)))
        else:
            self.end(UnknownRequest(unknown(self.task_id, was_known=self._was_known)))


def unknown(task_id: str, *, was_known: bool = False) -> str:
    """Explain why nobody knows a request, and what to do."""
    if was_known:
        return f"request {task_id}: Redis has lost it; send it again"
    return (
        f"request {task_id}: unknown: it is in no queue, and has neither journal nor result. It was never sent to this "
        "Redis, or it ended longer ago than results are kept (result_ttl_s). To wait for a request that is yet to be sent, set "
        "CELERY_MLX_UNKNOWN_AFTER_S=0"
    )


def forgotten(task_id: str) -> str:
    """Explain why a request that has ended has no result, and what to do."""
    return (
        f"request {task_id}: it has ended, and no result is stored: it was not wanted (ignore_result), was forgotten, or is "
        "older than result_ttl_s. stream() reads its journal, while that is kept (journal_ttl_s)"
    )
