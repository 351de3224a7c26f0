"""The engine's loop: one thread that admits requests, steps the batch and sends what each step brought."""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import TYPE_CHECKING

from tasks.engine.model.memory import MemoryBound
from tasks.engine.patience import Patience
from tasks.engine.runner import OutOfDeviceMemory
from tasks.errors import GenerationError, InvalidRequest, OutOfMemory
from tasks.messages.engine import Abort, Failed, Resize, Resized, StepOutput

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tasks.engine.intake import Intake, Item
    from tasks.engine.runner import Draw, ModelRunner
    from tasks.engine.sequence import Request
    from tasks.messages.engine import Event

logger = logging.getLogger(__name__)


class GenerationLoop:
    """Owns the batch. Everything here happens on the thread that calls :meth:`run`."""

    def __init__(
        self,
        runner: ModelRunner,
        intake: Intake[Request],
        send: Callable[[StepOutput | Resized], None],
        *,
        max_batch: int,
        model: str = "",
        memory_budget_bytes: int | None = None,
        flush: Callable[[], object] = lambda: None,
        patience: Patience | None = None,
    ) -> None:
        self._runner = runner
        self._flush = flush
        self._patience = patience or Patience()
        self._intake = intake
        self._send_out = send
        self._max_batch = max_batch
        self._model = model
        self._bound = None if memory_budget_bytes is None else self._bound_of(memory_budget_bytes)
        self._promised: MemoryBound | None = None
        self._resizing = False
        self._limit = max_batch
        self._inbox: deque[Item] = deque()
        self._waiting: deque[Request] = deque()
        self._running: dict[int, Request] = {}
        self._events: list[Event] = []
        self._reported_prefill = 0
        self._steps = 0
        self._fitting_steps = 0

    def run(self) -> None:
        """Serve for ever; the link's reader ends the process."""
        while True:
            self.turn()

    def turn(self) -> None:
        """One turn of the loop: what has come, one decode step and one prefill step, each with its outputs."""
        try:
            self._receive()
            if self._admit():
                # A request that kills the engine in its first step must be known to have been in the batch.
                self.send()
                self._flush()
            for step in (self._runner.decode, self._runner.prefill):
                ended = self._take(step())
                self.send()  # before anything that takes time; a GPU is at work on the next step already
                self._release(ended)
        except OutOfDeviceMemory as error:
            self._retreat(error)

    def _receive(self) -> None:
        idle = not self._running and not self._waiting and not self._inbox
        if idle:
            self.send()
        self._inbox.extend(self._intake.collect(self._runner.gather_s if idle else None))
        while self._inbox:
            item = self._inbox.popleft()
            if isinstance(item, Abort):
                self._abort(item)
            elif isinstance(item, Resize):
                self._resize(item)
            elif isinstance(item, Failed):
                self._events.append(item)
            elif item.reason is not None:
                self._events += [item.start(), *item.finish(item.reason)]
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
        known = len(self._events)
        while len(self._running) < self._limit and (request := self._next()) is not None:
            self._waiting.remove(request)
            self._running[request.uid] = request
            cached_tokens = self._runner.insert(request)
            if not request.started:
                # A request that resumes also finds tokens of its answer: they are no part of the prompt that usage counts.
                request.cached_tokens = min(cached_tokens, len(request.prompt))
                self._events.append(request.start())
        return len(self._events) > known

    def _next(self) -> Request | None:
        """The first waiting request that may join the batch now, if those that it overtakes can wait."""
        for request in tuple(self._waiting):
            if not self._compatible(request):
                if self._waited_long(request):
                    return None
            elif self._runner.shares_prefill(request):
                continue
            elif self._fits(request):
                return request
            elif self._running:
                return None
            elif not self._will_fit(request):
                self._waiting.remove(request)
                self._fail_for_memory(request)
        return None

    def _compatible(self, request: Request) -> bool:
        """Whether isolation allows the request beside those that run."""
        first = next(iter(self._running.values()), None)
        isolate = request.submit.isolate
        return first is None or (isolate == first.submit.isolate and isolate != "alone")

    def _waited_long(self, request: Request) -> bool:
        now = time.monotonic()
        if request.passed_over_at is None:
            request.passed_over_at = now
        return now - request.passed_over_at > self._patience.overtake_s

    def _lengths(self, *more: Request) -> list[int]:
        return [request.most_tokens for request in (*self._running.values(), *more)]

    def _fits(self, request: Request) -> bool:
        if self._bound is None:
            return True
        room = self._bound.room_bytes(self._lengths(request))
        if room >= 0:
            self._runner.limit_prompt_cache(room)
        return room >= 0

    def _will_fit(self, request: Request) -> bool:
        """Whether the request fits into what was promised, which others are about to give back; waits for a moment."""
        if self._promised is None or self._promised.room_bytes([request.most_tokens]) < 0:
            return False
        now = time.monotonic()
        request.held_at = request.held_at or now
        if now - request.held_at > self._patience.promise_s:
            return False
        time.sleep(self._patience.promise_look_s)
        return True

    def _fail_for_memory(self, request: Request, why: str = "") -> None:
        if not why:
            assert self._bound is not None
            why = self._bound.refusal(request.most_tokens)
        self._events.append(Failed(request.task_id, OutOfMemory.code, why))

    def _take(self, drawn: Sequence[Draw]) -> list[Request]:
        """Turn a step's tokens into events; returns the requests that they end."""
        if not drawn:
            return []
        self._steps += 1
        self._fitting_steps += 1
        if self._limit < self._max_batch and self._fitting_steps >= self._patience.recover_steps:
            self._limit, self._fitting_steps = min(self._max_batch, 2 * self._limit), 0
        for draw in drawn:
            request = self._running[draw.uid]
            if request.done:
                continue  # it ended with a token before this one of the same step
            if draw.fault:
                self._events.append(request.fail(InvalidRequest.code, self._why_at_fault(request, draw.fault)))
            elif draw.sound:
                self._events += request.take(draw.token, draw.logprob, complete=draw.complete)
            else:
                self._events.append(request.fail(GenerationError.code, self._why_unsound(request)))
        return [request for request in self._running.values() if request.done]

    def _why_unsound(self, request: Request) -> str:
        return (
            f"model {self._model!r} computed logits that are not finite numbers for token {len(request.ids)}: "
            "its weights are damaged, or overflow in the precision that they are stored in. Fetch them again, or take "
            "another quantisation"
        )

    @staticmethod
    def _why_at_fault(request: Request, fault: str) -> str:
        return (
            f"the constraint of the answer cannot be kept to from token {len(request.ids)} on ({fault}): it is too ambiguous or "
            "too large for a step. Take a simpler schema or grammar"
        )

    def _release(self, ended: Sequence[Request]) -> None:
        """Free the slots of requests that ended, and keep the prompts of those that ended well where there is room."""
        for keep in (True, False):
            uids = [request.uid for request in ended if request.failed is not keep]
            if uids:
                self._runner.remove(uids, keep=keep)
                for uid in uids:
                    del self._running[uid]
                self._free_room()

    def _resize(self, resize: Resize) -> None:
        self._bound = self._bound_of(resize.memory_budget_bytes)
        self._promised = self._bound_of(resize.promised_bytes)
        self._resizing = True
        self._free_room()

    def _bound_of(self, total_bytes: int) -> MemoryBound:
        facts = self._runner.facts
        return MemoryBound(total_bytes, facts.weights_bytes, facts.kv, facts.prefill_step_tokens)

    def _free_room(self) -> None:
        """Leave cached prompts what the running batch does not need, and say so once that fits a new bound."""
        if self._bound is None:
            return
        room = self._bound.room_bytes(self._lengths())
        self._runner.limit_prompt_cache(room)
        if self._resizing and room >= 0:
            self._resizing = False
            self._send_out(Resized(self._bound.total_bytes))

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
        """Send what has happened since the last message, if anything has."""
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
