"""The loop of an engine that makes vectors: one thread that takes requests in, steps batches of rows and sends answers."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING

from tasks.engine.embedding.batching import take_batch
from tasks.engine.generation.runner import OutOfDeviceMemory
from tasks.errors import GenerationError, OutOfMemory
from tasks.messages.engine import Abort, Failed, Resize, Resized, StepOutput

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.engine.embedding.embedder import TextModel
    from tasks.engine.embedding.texts import Texts
    from tasks.engine.generation.intake import Intake
    from tasks.messages.engine import Event, Isolation

logger = logging.getLogger(__name__)

#: The time that an idle engine waits for the rest of a burst: short texts of many requests make one step.
GATHER_S = 0.002


class EmbeddingLoop:
    """Owns the requests. Everything here happens on the thread that calls :meth:`run`.

    Args:
        model: makes the vectors.
        intake: where requests come from.
        send: where a step's outputs go.
        memory_budget_bytes: the most that the engine may hold; ``None`` means no bound.
        flush: empties the pipe.
    """

    def __init__(
        self,
        model: TextModel,
        intake: Intake[Texts],
        send: Callable[[StepOutput | Resized], None],
        *,
        memory_budget_bytes: int | None = None,
        flush: Callable[[], object] = lambda: None,
    ) -> None:
        self._model = model
        self._intake = intake
        self._send_out = send
        self._flush = flush
        self._most_tokens = model.step_tokens(memory_budget_bytes)
        self._waiting: deque[Texts] = deque()
        self._running: deque[Texts] = deque()
        self._events: list[Event] = []
        self._computed_tokens = 0
        self._steps = 0

    def run(self) -> None:
        """Serve for ever; the link's reader ends the process."""
        while True:
            self.turn()

    def turn(self) -> None:
        """Take messages, run one step, and send its outputs."""
        self._receive()
        if self._admit():
            # A request that kills the engine in its first step must be known to have been in the batch.
            self.send()
            self._flush()
        if self._running:
            self._step()
            self._running.rotate(-1)
        self.send()

    def _receive(self) -> None:
        self._intake.prepare_apart(self._allows)
        idle = not self._running and not self._waiting
        for item in self._intake.collect(GATHER_S if idle else None):
            if isinstance(item, Abort):
                self._abort(item)
            elif isinstance(item, Resize):
                self._most_tokens = self._model.step_tokens(item.memory_budget_bytes)
                self._send_out(Resized(item.memory_budget_bytes))
            elif isinstance(item, Failed):
                self._events.append(item)
            else:
                self._waiting.append(item)

    def _abort(self, abort: Abort) -> None:
        for requests in (self._waiting, self._running):
            for request in tuple(requests):
                if request.task_id == abort.task_id:
                    requests.remove(request)
                    self._events.append(request.abort(abort.reason))

    def _admit(self) -> bool:
        """Let requests join in their order; whether one did."""
        before = len(self._running)
        while self._waiting and not self._intake.apart_waits_s and self._allows(self._waiting[0].work.isolate):
            request = self._waiting.popleft()
            self._running.append(request)
            self._events.append(request.start())
        return len(self._running) > before

    def _allows(self, isolate: Isolation) -> bool:
        """Whether isolation allows a request beside those that run."""
        return not self._running or (isolate == self._running[0].work.isolate and isolate != "alone")

    def _step(self) -> None:
        batch = take_batch(self._running, self._most_tokens, self._model.threads)
        rows = [request.rows[place] for request, place in batch]
        try:
            vectors = self._model.embed(rows)
        except OutOfDeviceMemory as error:
            self._retreat(batch, error)
            return
        self._steps += 1
        self._computed_tokens += sum(len(row.ids) for row in rows)
        failed: dict[str, str] = {}
        for (request, place), vector in zip(batch, vectors, strict=True):
            try:
                request.take(place, vector)
            except GenerationError as error:
                failed[request.task_id] = str(error)
        for request in tuple(self._running):
            if request.task_id in failed:
                self._end(request, request.fail(GenerationError.code, failed[request.task_id]))
            elif not request.pending:
                self._end(request, request.finish())

    def _end(self, request: Texts, event: Event) -> None:
        self._running.remove(request)
        self._events.append(event)

    def _retreat(self, batch: list[tuple[Texts, int]], error: OutOfDeviceMemory) -> None:
        """After a step ran out of memory: put its rows back and take half as many, or give the one row up."""
        request, place = batch[0]
        if len(batch) == 1:
            why = f"{request.named(place)}: {request.length(place)} tokens do not fit into the device's memory: {error}"
            self._end(request, request.fail(OutOfMemory.code, why))
            return
        self._most_tokens = request.length(place) * (len(batch) // 2)
        logger.warning("out of memory with %d rows (%s); going on with %d tokens", len(batch), error, self._most_tokens)
        for request, place in batch:
            request.put_back(place)

    def send(self) -> None:
        """Send the events since the last message, if there are any."""
        if not self._events and not self._computed_tokens:
            return
        memory = self._model.memory()
        self._send_out(
            StepOutput(
                step=self._steps,
                events=self._events,
                running=len(self._running),
                waiting=len(self._waiting),
                prefilled=self._computed_tokens,
                active_bytes=memory.active_bytes if memory else None,
                cache_bytes=memory.cache_bytes if memory else None,
                peak_bytes=memory.peak_bytes if memory else None,
            )
        )
        self._events, self._computed_tokens = [], 0
