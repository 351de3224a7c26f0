"""The engine's loop: one thread that admits requests, steps the batch and sends the events of each step."""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import TYPE_CHECKING

from tasks.engine.failure import why_at_fault, why_unsound
from tasks.engine.generation.allowance import Allowance
from tasks.engine.generation.patience import Patience
from tasks.engine.generation.runner import OutOfDeviceMemory
from tasks.engine.generation.running import Running
from tasks.errors import GenerationError, InvalidRequest, OutOfMemory
from tasks.messages.engine import Abort, Failed, Resize, Resized, StepOutput

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tasks.engine.generation.intake import Intake, Item
    from tasks.engine.generation.runner import Draw, ModelRunner
    from tasks.engine.generation.sequence import Request
    from tasks.messages.engine import EngineConfig, Event

logger = logging.getLogger(__name__)


class GenerationLoop:
    """Owns the batch. Everything here happens on the thread that calls :meth:`run`.

    Args:
        runner: the model.
        intake: where requests come from, prepared.
        send: called with the events of each step.
        config: the model's name, and the bounds of its batch and its memory.
        flush: waits until the worker has all that was sent.
        patience: how long requests wait for each other.
    """

    def __init__(
        self,
        runner: ModelRunner,
        intake: Intake[Request],
        send: Callable[[StepOutput | Resized], None],
        config: EngineConfig,
        *,
        flush: Callable[[], object] = lambda: None,
        patience: Patience | None = None,
    ) -> None:
        self._runner = runner
        self._flush = flush
        self._patience = patience or Patience()
        self._intake = intake
        self._send_out = send
        self._config = config
        self._limit = config.max_batch
        self._inbox: deque[Item] = deque()
        self._waiting: deque[Request] = deque()
        self._running = Running()
        self._allowance = Allowance(runner, self._running, config.memory_budget_bytes, self._patience)
        self._events: list[Event] = []
        self._reported_prefill = 0
        self._steps = 0
        self._fitting_steps = 0

    def run(self) -> None:
        """Serve for ever; the link's reader ends the process."""
        while True:
            self.turn()

    def turn(self) -> None:
        """Take messages, and run one decode step and one prefill step, each with its outputs."""
        try:
            self._receive()
            if self._admit():
                self._announce()
            for step in (self._runner.decode, self._runner.prefill):
                ended = self._take(step(self._let_urgent_in if self._running.batch_work else None))
                self.send()  # before anything that takes time; a GPU is at work on the next step already
                self._release(ended)
        except OutOfDeviceMemory as error:
            self._retreat(error)

    def _receive(self) -> None:
        self._intake.prepare_apart(self._running.allows)
        idle = not self._running and not self._waiting and not self._inbox
        if idle:
            self.send()
        self._inbox.extend(self._intake.collect(self._runner.gather_s if idle else None, self._limit))
        while self._inbox:
            item = self._inbox.popleft()
            if isinstance(item, Abort):
                self._abort(item)
            elif isinstance(item, Resize):
                self._allowance.resize(item)
                self._free_room()
            elif isinstance(item, Failed):
                self._events.append(item)
            elif item.reason is not None:
                self._events += [item.start(), *item.finish(item.reason)]
            elif item.submit.isolate:  # it was prepared just now because it may join
                self._waiting.appendleft(item)
            else:
                self._waiting.append(item)

    def _abort(self, abort: Abort) -> None:
        for request in (*self._waiting, *self._running.values()):
            if request.task_id == abort.task_id:
                self._events += request.finish(abort.reason)
                if self._running.pop(request.uid, None) is None:
                    self._waiting.remove(request)
                else:
                    self._runner.remove([request.uid], keep=False)
                    self._free_room()
                return

    def _admit(self) -> bool:
        """Let requests join the batch; whether one did that its worker has not heard of."""
        is_new = False
        while (request := self._next()) is not None:
            self._waiting.remove(request)
            if self._running.goes_before(request):
                self._compute_first(request)
            else:
                is_new = self._join(request) or is_new
        return is_new

    def _join(self, request: Request) -> bool:
        """Add a request to the batch; whether its worker has not heard of that."""
        self._running[request.uid] = request
        cached_tokens = self._runner.insert(request)
        if request.started:
            return False
        # A request that resumes also finds tokens of its answer: they are no part of the prompt that usage counts.
        request.cached_tokens = min(cached_tokens, len(request.prompt))
        self._events.append(request.start())
        return True

    def _announce(self) -> None:
        """Send at once: a request that kills the engine in its first step must be known to have been in the batch."""
        self.send()
        self._flush()

    def _compute_first(self, request: Request) -> None:
        """Have an urgent request join, and compute its prompt and its first token while batch work stands still."""
        self._join(request)
        self._announce()
        self._take(self._runner.compute_alone(request))
        self.send()

    def _let_urgent_in(self) -> None:
        """In the middle of a step beside batch work: do not have urgent requests that came meanwhile wait for its end."""
        if not self._intake.has_ready:
            return
        self._inbox.extend(self._intake.collect())
        for item in tuple(self._inbox):
            if not isinstance(item, Abort | Resize | Failed) and item.reason is None and self._may_interrupt(item):
                self._inbox.remove(item)
                self._compute_first(item)

    def _may_interrupt(self, request: Request) -> bool:
        """Whether a request joins in the middle of a step; one that makes others leave waits for the end of it."""
        return (
            self._running.goes_before(request)
            and self._running.has_place(request, self._limit, self._beyond)
            and self._running.allows(request.submit.isolate)
            and not self._runner.shares_prefill(request)
            and self._allowance.fits(request)
        )

    @property
    def _beyond(self) -> int:
        """The number of urgent requests that may join beyond the limit; none where a step ran out of memory a short time ago."""
        return self._config.urgent_rows if self._limit == self._config.max_batch else 0

    def _next(self) -> Request | None:
        """The first waiting request that may join the batch now, if those that it overtakes can wait; urgent ones go first."""
        if self._intake.apart_waits_s > self._patience.overtake_s:
            return None
        for request in sorted(self._waiting, key=lambda request: request.submit.gives_way):
            if not self._running.has_place(request, self._limit, self._beyond):
                return None
            if request.submit.gives_way and self._running.awaits_first and not self._waited_long(request):
                return None  # in one step, an interactive request would wait for the prompts of batch work
            if not self._running.allows(request.submit.isolate):
                if self._waited_long(request):
                    return None
            elif self._runner.shares_prefill(request):
                continue
            elif self._allowance.fits(request):
                return request
            elif self._running:
                return request if self._set_aside_for(request) else None
            elif not self._allowance.will_fit(request):
                self._waiting.remove(request)
                self._fail_for_memory(request)
        return None

    def _set_aside_for(self, request: Request) -> bool:
        """Have batch work leave until an urgent request fits into memory, if it can; it joins again once there is room."""
        if not self._running.goes_before(request) or not self._allowance.fits_without_batch_work(request):
            return False
        for row in reversed(self._running.batch_work):
            self._runner.remove([row.uid], keep=True)
            del self._running[row.uid]
            self._waiting.appendleft(row)
            if self._allowance.fits(request):
                break
        return True

    def _waited_long(self, request: Request) -> bool:
        now = time.monotonic()
        if request.passed_over_at is None:
            request.passed_over_at = now
        return now - request.passed_over_at > self._patience.overtake_s

    def _fail_for_memory(self, request: Request, why: str = "") -> None:
        self._events.append(Failed(request.task_id, OutOfMemory.code, why or self._allowance.refusal(request)))

    def _take(self, drawn: Sequence[Draw]) -> list[Request]:
        """Turn a step's tokens into events; returns the requests that they end."""
        if not drawn:
            return []
        self._steps += 1
        self._fitting_steps += 1
        if self._limit < self._config.max_batch and self._fitting_steps >= self._patience.recover_steps:
            self._limit, self._fitting_steps = min(self._config.max_batch, 2 * self._limit), 0
        for draw in drawn:
            request = self._running[draw.uid]
            if request.done:
                continue  # it ended with a token before this one of the same step
            if draw.fault:
                self._events.append(request.fail(InvalidRequest.code, why_at_fault(len(request.ids), draw.fault)))
            elif draw.sound:
                self._events += request.take(draw.token, draw.logprob, complete=draw.complete)
            else:
                self._events.append(
                    request.fail(GenerationError.code, why_unsound(self._config.model, len(request.ids)))
                )
        return [request for request in self._running.values() if request.done]

    def _release(self, ended: Sequence[Request]) -> None:
        """Free the slots of requests that ended, and keep the prompts of those that ended well where there is room."""
        for keep in (True, False):
            uids = [request.uid for request in ended if request.failed is not keep]
            if uids:
                self._runner.remove(uids, keep=keep)
                for uid in uids:
                    del self._running[uid]
                self._free_room()

    def _free_room(self) -> None:
        """Leave cached prompts the bytes that the batch does not need, and report once that fits a new bound."""
        total_bytes = self._allowance.free_room()
        if total_bytes is not None:
            self._send_out(Resized(total_bytes))

    def _retreat(self, error: OutOfDeviceMemory) -> None:
        """After a step ran out of memory: forget cached prompts, halve the batch, and let the rest try again later."""
        self._runner.reset()
        crowd = len(self._running)
        rows = [request for request in self._running.values() if not request.done]
        self._running.clear()
        self._free_room()
        self._limit, self._fitting_steps = max(1, crowd // 2), 0
        logger.warning("out of memory with %d rows (%s); going on with %d at a time", crowd, error, self._limit)
        if crowd == 1 and rows:
            if rows[0].ran_out_alone:
                why = f"{rows[0].most_tokens} tokens do not fit into the device's memory: {error}"
                self._fail_for_memory(rows.pop(), why)
            else:
                rows[0].ran_out_alone = True
        self._waiting.extendleft(reversed(rows))

    def send(self) -> None:
        """Send the events since the last message, if there are any."""
        prefilled = self._runner.prefilled_tokens
        if not self._events and prefilled == self._reported_prefill:
            return
        memory = self._runner.memory()
        self._send_out(
            StepOutput(
                step=self._steps,
                events=self._events,
                running=sum(not request.done for request in self._running.values()),
                waiting=len(self._waiting),
                prefilled=prefilled - self._reported_prefill,
                active_bytes=memory.active_bytes if memory else None,
                cache_bytes=memory.cache_bytes if memory else None,
                peak_bytes=memory.peak_bytes if memory else None,
            )
        )
        self._events, self._reported_prefill = [], prefilled
