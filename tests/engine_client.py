"""A worker's part in tests of the engine: it submits, and collects what comes back by request."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import psutil

from tasks.messages.engine import (
    Abort,
    EngineConfig,
    Failed,
    Finished,
    Preparing,
    Resized,
    Resume,
    Sampling,
    Started,
    StepOutput,
    Submit,
    TokenLogprob,
    Tokens,
)
from tasks.messages.load import LoadFailed, Loading, Ready
from tasks.worker.engines.process import EngineGone, EngineProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tasks.messages.engine import FromEngine

WAIT_S = 60.0
GREEDY = Sampling(temperature=0.0)


@dataclass(slots=True)
class Answer:
    """All that came back for one request; ``steps`` has the step of each event, ``texts`` the text of each id."""

    started: Started | None = None
    ids: list[int] = field(default_factory=list)
    text: str = ""
    texts: list[str] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finished: Finished | None = None
    failed: Failed | None = None

    @property
    def done(self) -> bool:
        return self.finished is not None or self.failed is not None

    @property
    def reason(self) -> str | None:
        return self.finished.finish_reason if self.finished else None

    def add(self, event: Any, step: int) -> None:
        assert not self.done, f"{event} came after the end"
        self.steps.append(step)
        if isinstance(event, Started):
            assert self.started is None
            self.started = event
        elif isinstance(event, Tokens):
            self.ids += event.ids
            self.text += event.text
            self.texts += [event.text] if event.ids else []
            self.logprobs += event.logprobs or []
        elif isinstance(event, Finished):
            self.finished = event
        else:
            self.failed = event


class EngineClient:
    """An engine process with a thread that reads it."""

    def __init__(self, config: EngineConfig) -> None:
        self.process = EngineProcess.start(config)
        self.outputs: list[StepOutput] = []
        self.answers: dict[str, Answer] = {}
        self.loaded: Ready | LoadFailed | None = None
        self.loading: list[Loading] = []
        self.resized: list[int] = []
        self.preparing: list[Preparing] = []
        self.gone: EngineGone | None = None
        self._changed = threading.Condition()
        self._number = 0
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.close()
        self._thread.join(WAIT_S)

    @property
    def ready(self) -> Ready:
        loaded = self.wait(lambda: self.loaded or self.gone)
        assert isinstance(loaded, Ready), loaded
        return loaded

    @property
    def load_failed(self) -> LoadFailed:
        loaded = self.wait(lambda: self.loaded or self.gone)
        assert isinstance(loaded, LoadFailed), loaded
        return loaded

    def submit(self, prompt: str | list[dict[str, Any]], max_tokens: int | None = 20, **fields: Any) -> str:
        """Send a request and return its task id."""
        with self._changed:
            self._number += 1
            task_id = f"task-{self._number}"
            self.answers[task_id] = Answer()
        raw = isinstance(prompt, str)
        fields.setdefault("sampling", GREEDY)
        self.process.send(
            Submit(
                task_id=task_id,
                messages=None if raw else prompt,  # type: ignore[arg-type]
                prompt=prompt if raw else None,  # type: ignore[arg-type]
                max_tokens=max_tokens,
                **fields,
            )
        )
        return task_id

    @contextmanager
    def held(self) -> Iterator[None]:
        """What is sent meanwhile reaches the engine at once: its process stands still until then."""
        process = psutil.Process(self.process.pid)
        process.suspend()
        try:
            yield
        finally:
            process.resume()

    def abort(self, task_id: str, reason: Any = "cancelled") -> None:
        self.process.send(Abort(task_id, reason))

    def ask(self, prompt: str | list[dict[str, Any]], max_tokens: int | None = 20, **fields: Any) -> Answer:
        """Submit and wait for the end."""
        return self.answer(self.submit(prompt, max_tokens, **fields))

    def answer(self, task_id: str) -> Answer:
        """Wait for a request's end."""
        answer = self.answers[task_id]
        self.wait(lambda: answer.done or self.gone)
        assert answer.done, self.gone
        return answer

    def tokens(self, task_id: str, count: int) -> Answer:
        """Wait until a request has so many tokens."""
        answer = self.answers[task_id]
        self.wait(lambda: len(answer.ids) >= count)
        return answer

    def wait(self, condition: Callable[[], Any], timeout_s: float = WAIT_S) -> Any:
        """Wait until the condition is true of what has come, and return its value."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not (value := condition()):
                left_s = deadline - time.monotonic()
                assert left_s > 0, f"nothing within {timeout_s} s; gone: {self.gone}"
                self._changed.wait(left_s)
        return value

    @property
    def steps(self) -> int:
        """Decode steps so far."""
        return max((output.step for output in self.outputs), default=0)

    @property
    def prefilled(self) -> int:
        """Prompt tokens computed so far."""
        return sum(output.prefilled for output in self.outputs)

    def _read(self) -> None:
        try:
            while True:
                message = self.process.receive()
                with self._changed:
                    self._take(message)
                    self._changed.notify_all()
        except EngineGone as gone:
            with self._changed:
                self.gone = gone
                self._changed.notify_all()

    def _take(self, message: FromEngine) -> None:
        if isinstance(message, Loading):
            self.loading.append(message)
        elif isinstance(message, Ready | LoadFailed):
            self.loaded = message
        elif isinstance(message, Resized):
            self.resized.append(message.memory_budget_bytes)
        elif isinstance(message, Preparing):
            self.preparing.append(message)
        else:
            self.outputs.append(message)
            for event in message.events:
                self.answers[event.task_id].add(event, message.step)


def resume_from(answer: Answer, count: int, revision: str) -> Resume:
    """Where an attempt stood after its first ``count`` tokens, as its journal would say."""
    assert answer.started is not None
    return Resume(
        ids=answer.ids[:count],
        characters={"content": len("".join(answer.texts[:count]))},
        revision=revision,
        prompt_hash=answer.started.prompt_hash,
    )
