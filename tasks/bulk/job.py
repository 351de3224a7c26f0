"""A bulk job: reads lines, keeps the window full, and gives each line back once, with its answer or its error."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from tasks.bulk.ahead import Ahead
from tasks.bulk.doubts import Doubts
from tasks.bulk.finished import Finished
from tasks.bulk.flight import Flight
from tasks.bulk.identity import job_id
from tasks.bulk.line import BadLine, Line
from tasks.bulk.looks import Looks
from tasks.bulk.output import Done
from tasks.bulk.outputs import Outputs
from tasks.bulk.record import JobRecord, Records
from tasks.bulk.requests import Requests
from tasks.bulk.source import Source
from tasks.bulk.window import Window, reader
from tasks.client.sending.request import with_model
from tasks.errors import BrokerUnavailable, Cancelled, Expired, GenerationError
from tasks.server.connection import connect
from worker_config.celeryconfig import settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from celery import Celery

    from tasks.bulk.requests import Ended
    from tasks.bulk.source import Given

logger = logging.getLogger("tasks.generate")

RECORD_EVERY_S = 1.0
AWAY_S = 0.5
#: Lines that are read ahead of a file, and of what is made while it is read.
FILE_AHEAD, STREAM_AHEAD = 1_000, 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a job runs.

    Args:
        deadline_s: after so many seconds the lines that are not done end as expired; ``None`` for never.
        tries: how often a line is sent at most, if its error is retryable.
        priority: that of its requests; at 9 all other requests go first.
        job_id: hexadecimal digits; by default they follow from input and output.
    """

    deadline_s: float | None = None
    tries: int = 3
    priority: int = 9
    job_id: str = ""


class Job:
    """A context manager, and an iterator of finished lines, in whatever order they end. With an output each is in it first.

    Args:
        app: where requests are sent.
        given: the lines.
        output: a path or a binary stream; ``None`` leaves the answers to the iterator's caller.
        defaults: parameters of all lines.
        options: how it runs.
        errors: a path or a binary stream for lines that fail; ``None`` has them in the output.

    Raises:
        InvalidRequest: input or output cannot be used; the message says what to do.
    """

    def __init__(
        self,
        app: Celery,
        given: Given,
        output: Any = None,
        defaults: Mapping[str, Any] | None = None,
        options: Options | None = None,
        errors: Any = None,
    ) -> None:
        self._options = options or Options()
        self._source = Source(given, with_model(defaults or {}, settings_of(app)))
        survey = self._source.survey()
        self.job_id = self._options.job_id or job_id(survey.digest if survey is not None else None, output)
        self.done = Done()
        #: Lines that the output had when the job started.
        self.written_before = 0
        self._outputs = Outputs(self.job_id, output, errors)
        self._requests = Requests(app, self._options.priority)
        if model := (defaults or {}).get("model"):
            self._requests.queue_of(model)  # one that nobody allows would fail in each line
        self._window = Window(reader(app))
        self._flight = Flight(self.job_id, self._options.tries)
        self._ahead = Ahead(self._lines(), self._queue_of, FILE_AHEAD if self._source.path else STREAM_AHEAD)
        self._records = Records(connect(app))
        self._record = JobRecord(job_id=self.job_id, total=survey.count if survey is not None else 0)
        #: Whether Redis may have more of this job than this driver has sent: an earlier one was killed, or Redis was away.
        self._may_be_known = False
        self._doubts = Doubts(self._requests)
        #: The requests that were found to be lost, and are to be sent again.
        self._lost: set[str] = set()
        self._record_at = 0.0
        self._cancelled = self._stopped = False

    def __enter__(self) -> Self:
        self._outputs.open(self.done, self._source.path)
        self.written_before = len(self.done.numbers)
        earlier = self._records.read(self.job_id) if self._source.path is not None else None
        record = self._record
        record.source, record.output = _shown(self._source.path), _shown(self._outputs.path)
        before = earlier if self.done.numbers else None
        record.started_at = before.started_at if before is not None else time.time()
        if self._options.deadline_s:
            record.deadline = record.started_at + self._options.deadline_s
        if before is not None:
            record.deadline = max(record.deadline, before.deadline)
        self._may_be_known = earlier is not None
        self._requests.forget(self._outputs.last_ids)
        self._note(force=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._abandon()
        if self._record.status == "running":
            self._record.status = "interrupted"
        with suppress(GenerationError):
            self._note(force=True)
        self._outputs.close()
        self._requests.close()

    def __iter__(self) -> Iterator[Finished]:
        for finished in self.steps():
            yield from finished

    def steps(self) -> Iterator[list[Finished]]:
        """What each look at Redis has found finished, be it nothing. It is forgotten once the caller asks for more."""
        looks = Looks()
        while not self._is_over():
            in_flight = self.in_flight
            finished = self._step_patiently()
            self._write(finished)
            yield finished
            self._forget(finished)
            time.sleep(looks.pause_s(len(finished), in_flight))
        if self._stopped:
            return
        self._record.status = "cancelled" if self._cancelled else "completed"
        if not self._cancelled and self._may_be_known:
            # Where Redis has lost its last writes, it has lost deletions, too.
            self._requests.forget((self._flight.task_id(number) for number in self.done.numbers), mark=False)

    def stop(self) -> None:
        """Have the iteration end after the step that it is at. From any thread."""
        self._stopped = True

    @property
    def record(self) -> JobRecord:
        """How far it is."""
        record = self._record
        record.done, record.failed = len(self.done.numbers), self.done.failed
        record.prompt_tokens, record.completion_tokens = self.done.prompt_tokens, self.done.completion_tokens
        return record

    @property
    def in_flight(self) -> int:
        """How many of its requests are in Redis."""
        return len(self._flight)

    @property
    def workers(self) -> int:
        """How many live workers serve it."""
        return self._window.workers()

    def _is_over(self) -> bool:
        return (
            self._stopped or self._cancelled or (self._ahead.exhausted and not self._ahead.queues and not self._flight)
        )

    def _lines(self) -> Iterator[Line | BadLine]:
        return (line for line in self._source.lines() if line.number not in self.done.numbers)

    def _queue_of(self, line: Line) -> str:
        return self._requests.queue_of(line.values.get("model"))

    def _step(self, finished: list[Finished]) -> None:
        """Send what there is room for, and take what has ended: it is in ``finished`` then, also where a later part fails."""
        self._note()
        if self._cancelled:
            return
        if self._record.deadline and time.time() >= self._record.deadline:
            finished += self._expire()
            return
        self._window.look()
        finished += [self._finished(bad, error=bad.error) for bad in self._ahead.read()]
        for queue in self._ahead.queues:
            self._send(queue)
        for ended in self._requests.ended(self._flight.task_ids):
            finished += self._take(ended)
        self._send_lost_again()

    def _send(self, queue: str) -> None:
        lines = self._ahead.take(queue, self._window.of(queue) - self._flight.in_queue(queue))
        sent = {self._flight.add(line, queue): (queue, line) for line in lines}
        if not sent:
            return
        try:
            # What was found to be lost is sent whatever is known: it may have a journal, which nobody goes on with.
            fresh = set(sent) & self._lost
            fresh |= self._requests.unknown(set(sent) - fresh) if self._may_be_known else set(sent)
            unsent = self._requests.send({task_id: sent[task_id] for task_id in fresh})
        except GenerationError:
            for task_id in reversed(list(sent)):
                self._ahead.put_back(self._flight.remove(task_id))
            self._may_be_known = True  # some of them may have arrived
            raise
        self._lost -= set(sent) - unsent
        for task_id in reversed([task_id for task_id in sent if task_id in unsent]):
            self._ahead.put_back(self._flight.remove(task_id))

    def _take(self, ended: Ended) -> list[Finished]:
        """What follows from a request that has ended: a finished line, or another try."""
        self._doubts.heard()
        line = self._flight.remove(ended.task_id)
        error = ended.error
        if error is not None and (error.retryable or isinstance(error, Cancelled)) and self._flight.may_retry(line):
            logger.info("line %d is sent again: %s", line.number, error)
            self._requests.forget([ended.task_id])
            self._ahead.put_back(line)
            return []
        return [Finished(line, ended.task_id, ended.answer, error)]

    def _expire(self) -> list[Finished]:
        """End lines that are left: what is in Redis, then page by page what is not."""
        had_s = self._record.deadline - self._record.started_at
        error = Expired(f"the job's deadline has passed: give it more time than {round(had_s, 1):g} s")
        left = [self._flight.remove(task_id) for task_id in self._abandon()]
        finished = [self._finished(line, error=error) for line in left]
        finished += [
            self._finished(line, error=line.error if isinstance(line, BadLine) else error)
            for line in self._ahead.rest(FILE_AHEAD)
        ]
        return finished

    def _finished(self, line: Line | BadLine, error: GenerationError) -> Finished:
        return Finished(line, self._flight.task_id(line.number), None, error)

    def _step_patiently(self) -> list[Finished]:
        finished: list[Finished] = []
        try:
            self._step(finished)
        except BrokerUnavailable as error:
            logger.warning("%s; the job continues once Redis is back", error)
            self._may_be_known = True
            time.sleep(AWAY_S)
        return finished

    def _write(self, finished: list[Finished]) -> None:
        records = [answer.record() for answer in finished]
        self._outputs.write(records)
        for answer, record in zip(finished, records, strict=True):
            self.done.add(answer.line.number, record)
            self._flight.finish(answer.line.number)

    def _forget(self, finished: list[Finished]) -> None:
        sent = [answer.task_id for answer in finished if isinstance(answer.line, Line)]
        if sent:
            with suppress(GenerationError):  # it expires
                self._requests.forget(sent)

    def _send_lost_again(self) -> None:
        lost = self._doubts.lost(self._flight.task_ids)
        self._lost |= lost
        for task_id in lost:
            logger.warning("request %s was lost, and is sent again", task_id)
            self._ahead.put_back(self._flight.remove(task_id))

    def _abandon(self) -> list[str]:
        """Take back what is in Redis: nobody waits for it. A later run sends it again."""
        task_ids = self._flight.task_ids
        with suppress(GenerationError):
            self._requests.withdraw(task_ids)
        return task_ids

    def _note(self, *, force: bool = False) -> None:
        """Say how far the job is, now and then; and learn whether it is to stop."""
        now = time.monotonic()
        if force or now >= self._record_at:
            self._record_at = now + RECORD_EVERY_S
            self._cancelled = self._records.write(self.record) or self._cancelled


def _shown(path: Path | None) -> str:
    return "-" if path is None else str(path.absolute())
