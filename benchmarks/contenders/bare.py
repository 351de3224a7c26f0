"""The engine's process alone, without worker, driver or Redis: what a step costs, and what a row waits for."""

from __future__ import annotations

import threading
import time
from collections import deque
from itertools import pairwise
from typing import TYPE_CHECKING, Self

from benchmarks.parts.engine import loaded_engine
from tasks.messages.engine import (
    Abort,
    EngineConfig,
    Finished,
    Sampling,
    StepOutput,
    Submit,
    Tokens,
)
from worker_config.cache import bundled_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Of rows that decode for as long as they are needed.
MANY_TOKENS = 4_000


class BareEngine:
    """The engine of a bundled model; a context manager.

    Args:
        model: its name.
        max_batch: rows at once.
        prompt_cache_bytes: as a worker would give it.
        urgent_rows: beyond those, beside batch work.
    """

    def __init__(self, model: str, max_batch: int, prompt_cache_bytes: int, urgent_rows: int = 0) -> None:
        self._engine = loaded_engine(
            EngineConfig(
                model=model,
                source=str(bundled_folder(model)),
                max_batch=max_batch,
                urgent_rows=urgent_rows,
                prompt_cache_bytes=prompt_cache_bytes,
            )
        )
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.close()

    def tokens_per_s(self, prompts: Sequence[str], max_tokens: int, rows: int) -> float:
        """Answer these prompts, of which the engine always has as many as a worker would give it."""
        waiting = deque(prompts)
        started = time.perf_counter()
        tokens = left = 0
        while waiting or left:
            while waiting and left < rows:
                self._submit(waiting.popleft(), max_tokens)
                left += 1
            for event in self._step().events:
                if isinstance(event, Finished):
                    left, tokens = left - 1, tokens + event.completion_tokens
        return tokens / (time.perf_counter() - started)

    def first_tokens(self, rows: Sequence[str], urgent: Sequence[str], per_s: float) -> tuple[list[float], list[float]]:
        """Times to the first token of requests beside batch work that decodes, and of steps of its rows alone, in ms.

        Args:
            rows: prompts of the rows; none for an idle engine.
            urgent: prompts of the requests.
            per_s: how many of them come in a second.
        """
        running = {self._submit(prompt, MANY_TOKENS, gives_way=True) for prompt in rows}
        begun: set[str] = set()
        while begun != running:
            begun |= {event.task_id for event in self._step().events if isinstance(event, Tokens)}
        sent: dict[str, float] = {}

        def send() -> None:
            for prompt in urgent:
                time.sleep(1 / per_s)
                began = time.perf_counter()
                sent[self._submit(prompt, 1)] = began

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        arrivals, steps = self._collect(running, len(urgent))
        sender.join()
        for task_id in running:
            self._engine.send(Abort(task_id))
        while running:
            running -= {event.task_id for event in self._step().events if isinstance(event, Finished)}
        return [(arrived - sent[task_id]) * 1000 for task_id, arrived in arrivals.items()], steps

    def _collect(self, running: set[str], urgent: int) -> tuple[dict[str, float], list[float]]:
        """When each urgent request had its first token, and how long steps without one took."""
        arrivals: dict[str, float] = {}
        ended = 0
        times: list[float | None] = []
        while ended < urgent:
            events = self._step().events
            now = time.perf_counter()
            others = [event for event in events if event.task_id not in running]
            times.append(None if others else now)
            for event in others:
                if isinstance(event, Tokens):
                    arrivals.setdefault(event.task_id, now)
                ended += isinstance(event, Finished)
        return arrivals, [
            (after - before) * 1000 for before, after in pairwise(times) if before is not None and after is not None
        ]

    def _submit(self, prompt: str, max_tokens: int, *, gives_way: bool = False) -> str:
        self._count += 1
        task_id = f"bare-{self._count}"
        self._engine.send(
            Submit(
                task_id=task_id,
                messages=None,
                prompt=prompt,
                max_tokens=max_tokens,
                sampling=Sampling(temperature=0.0),
                gives_way=gives_way,
            )
        )
        return task_id

    def _step(self) -> StepOutput:
        message = self._engine.receive()
        assert isinstance(message, StepOutput), message
        return message
