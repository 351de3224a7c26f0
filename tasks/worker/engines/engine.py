"""One engine: its process, its part of the budget, and the attempts in it."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from tasks.errors import GenerationError, InvalidRequest, ModelLoadFailed, error_for
from tasks.messages.engine import Abort, Preparing, Resize, Resized, StepOutput
from tasks.messages.load import LoadFailed, Loading, Ready
from tasks.worker.engines.open_attempts import OpenAttempts
from tasks.worker.engines.process import EngineGone, EngineProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tasks.messages.answer import FinishReason
    from tasks.messages.engine import EngineConfig, FromEngine, Work
    from tasks.models.footprint import Footprint
    from tasks.worker.attempts.attempt import Attempt
    from tasks.worker.attempts.job import StopReason
    from tasks.worker.attempts.publisher import Publisher
    from tasks.worker.engines.budget import Reservation
    from tasks.worker.profile.installation import Installation
    from worker_config.catalogue import ModelEntry

logger = logging.getLogger(__name__)

#: A load that takes longer says how far it is.
SLOW_LOAD_S = 2.0
ABORT_REASON: dict[StopReason, FinishReason] = {
    "cancelled": "cancelled",
    "soft_time_limit": "deadline",
    "time_limit": "deadline",
    "requeue": "cancelled",
}


class Engine:
    """One engine and the attempts in it. Its process begins with :meth:`start`.

    Args:
        entry: the model.
        config: the configuration of the process.
        reservation: its part of the budget.
        footprint: the memory that it is expected to need.
        publisher: where the attempts' entries go.
        installation: the code that its process is started from.
        on_change: called when it is ready, failed, gone, or keeps to another size; on the reader's thread.
        on_step: called with each step, on the reader's thread.
    """

    def __init__(
        self,
        entry: ModelEntry,
        config: EngineConfig,
        reservation: Reservation,
        footprint: Footprint,
        publisher: Publisher,
        installation: Installation,
        on_change: Callable[[Engine], None],
        on_step: Callable[[StepOutput], None],
    ) -> None:
        self.entry = entry
        self.reservation = reservation
        self.footprint = footprint
        #: How long it may idle, by the last request that had it; ``None`` for the catalogue's or the setting's time.
        self.keep_alive_s: float | None = None
        self.ready: Ready | None = None
        self.failure: GenerationError | None = None
        #: How its process ended where a signal ended it, unasked, before it was ready: that is not the model's fault.
        self.crash: EngineGone | None = None
        #: Why it cannot be started from what is installed now, which is not its model's fault; empty if it can.
        self.outdated = ""
        self.last: StepOutput | None = None
        self.loading: Loading | None = None
        #: The bound that it has confirmed last, in MLX's own bytes.
        self.bound_bytes: int | None = None
        self._publisher = publisher
        self._installation = installation
        self._on_change = on_change
        self._on_step = on_step
        self.attempts = OpenAttempts(publisher.write)
        self.config = config
        self._made_at = time.monotonic()
        self._closing = False
        self._process: EngineProcess | None = None

    def start(self) -> None:
        """Start the process, and a thread that reads its messages. A machine that is out of processes may have some later."""
        if self._closing:
            return
        try:
            process = EngineProcess.start(self.config)
        except OSError as error:
            self._not_started(error)
            return
        self._process = process
        threading.Thread(target=self._read, args=(process,), name=f"engine-{process.pid}", daemon=True).start()
        if self._closing or self.failure is not None:  # close() or give_up() came before there was a process
            process.kill()

    def _not_started(self, error: OSError) -> None:
        self.attempts.close(was_ready=False)
        why = f"no process could be started for it: {error}"
        self.outdated = self._installation.fault_of(f"{type(error).__name__}: {error}")
        if not self.outdated:
            self.crash = EngineGone(why)
        self._on_change(self)

    @property
    def process(self) -> EngineProcess:
        """The process of an engine that was started."""
        assert self._process is not None, "the engine was not started"
        return self._process

    @property
    def pid(self) -> int | None:
        """The process's id; ``None`` before :meth:`start`."""
        return self._process.pid if self._process is not None else None

    def submit(self, attempt: Attempt, work: Work) -> None:
        """Hand a request to the process; its attempt finishes when it ends, however it ends."""
        if not self.attempts.enter(attempt):
            self._publisher.put([(attempt, attempt.release(crashed=False))])
            return
        try:
            self.process.send(work)
        except EngineGone:
            logger.debug("engine %s ended before it took request %s", self.process.pid, attempt.task_id)
        except Exception as error:
            # A request that never reaches the engine would be waited for, and the engine replaced for its silence.
            logger.exception("request %s cannot be sent to engine %s", attempt.task_id, self.process.pid)
            self.attempts.leave(attempt.task_id)
            message = f"the request cannot be sent to its engine: {type(error).__name__}"
            self._publisher.put([(attempt, attempt.error(InvalidRequest.code, message))])

    def forget(self, attempt: Attempt) -> None:
        """The attempt has finished. Where that was not the engine's doing, have it stop; it has the attempt until it says so."""
        if self.attempts.has(attempt):
            self._abort(attempt.task_id, "cancelled")

    def stop(self, attempt: Attempt, reason: StopReason, limit_s: float | None = None) -> None:
        """Have an attempt end within one step, for this reason."""
        attempt.stop_reason = reason
        attempt.limit_s = limit_s
        self._abort(attempt.task_id, ABORT_REASON[reason])

    def _abort(self, task_id: str, reason: FinishReason) -> None:
        try:
            self.process.send(Abort(task_id, reason))
        except EngineGone:
            logger.debug("engine %s ended before request %s was aborted", self.process.pid, task_id)

    def resize(self, size_bytes: int, promised_bytes: int) -> None:
        """Have it stay within this part of the worker's budget; it says when it does. More is promised for soon."""
        process_bytes = self.footprint.process_bytes
        try:
            self.process.send(Resize(size_bytes - process_bytes, promised_bytes - process_bytes))
        except EngineGone:
            logger.debug("engine %s ended before it was given another size", self.process.pid)

    @property
    def size_bytes(self) -> int | None:
        """The part of the worker's budget that it keeps to; ``None`` before it was told of another than its first."""
        return None if self.bound_bytes is None else self.bound_bytes + self.footprint.process_bytes

    @property
    def gone(self) -> bool:
        """Whether its process has ended."""
        return self.attempts.closed

    @property
    def serves(self) -> bool:
        """Whether it takes requests."""
        return (
            self.ready is not None
            and not self.gone
            and not self.reservation.retiring
            and self.reservation.state == "ready"
        )

    def stalled(self, timeout_s: float) -> bool:
        """Whether it has had work, and made no step, for so long."""
        return self.attempts.stalled(timeout_s)

    def give_up(self, error: GenerationError) -> None:
        """End a process that does not start as it should; the requests that wait for it get this error."""
        self.failure = error
        self.kill()

    def kill(self) -> None:
        """End the process at once; its attempts go back."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End the process; for an engine without work. Returns when it is gone."""
        self._closing = True
        if self._process is not None:
            self._process.close()

    def _read(self, process: EngineProcess) -> None:
        """Read the process's messages until it is gone. This thread must not die: its requests would wait for ever."""
        while not self.gone:
            try:
                messages = [process.receive()]
                while process.has_more:
                    messages.append(process.receive())
                self._hear(messages)
            except EngineGone as error:
                self._lost(error)
            except Exception:
                # It may be half a message that was read, or half a step that was dealt with.
                logger.exception("an event of engine %s cannot be handled; the engine is ended", process.pid)
                process.kill()

    def _hear(self, messages: Sequence[FromEngine]) -> None:
        """Take all messages that came together. The entries of several steps are written together, once the steps are counted."""
        steps = [message for message in messages if isinstance(message, StepOutput)]
        for message in messages:
            if isinstance(message, StepOutput):
                self._tell(self._on_step, message)
            elif isinstance(message, Preparing):
                self.attempts.prepare(message.task_id, done=message.done)
            elif isinstance(message, Loading):
                self.loading = message
                if time.monotonic() - self._made_at > SLOW_LOAD_S:
                    logger.info("model %s: %s", self.entry.name, message.about)
            else:
                self._note(message)
                self._tell(self._on_change, self)
        if steps:
            self.last = steps[-1]
            self.attempts.take([event for step in steps for event in step.events])

    def _tell(self, callback: Callable[..., None], *arguments: Any) -> None:
        """Call somebody else's function, whose faults are not the engine's."""
        try:
            callback(*arguments)
        except Exception:
            logger.exception("what follows from a message of engine %s failed", self.pid)

    def _note(self, message: FromEngine) -> None:
        if isinstance(message, Ready):
            self.ready = message
        elif isinstance(message, LoadFailed):
            if (
                message.code == ModelLoadFailed.code
            ):  # mlx-lm says so of a model, too, whose code is being replaced just now
                self.outdated = self._installation.fault()
            if not self.outdated:
                self.failure = self.failure or error_for(message.code)(message.message)
        elif isinstance(message, Resized):
            self.bound_bytes = message.memory_budget_bytes

    def _lost(self, error: EngineGone) -> None:
        """The process has ended, asked or unasked."""
        count = self.attempts.close(was_ready=self.ready is not None)
        if not self._closing:
            logger.error("%s; %d requests were in it", error, count)
        if self.ready is None and self.failure is None and not self.outdated:
            self._never_ready(error)
        self._tell(self._on_change, self)

    def _never_ready(self, error: EngineGone) -> None:
        if error.exitcode == os.EX_PROTOCOL:
            self.outdated = "its code was replaced after its start"
        elif error.is_accident:
            self.crash = error
        elif not self._closing and (fault := self._installation.fault_of(str(error))):
            self.outdated = fault
        else:
            self.failure = ModelLoadFailed(f"model {self.entry.name!r} cannot be loaded: {error}")
