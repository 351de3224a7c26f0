"""The result of ``.apply()``, and of ``delay()`` with ``task_always_eager``: its answer is there already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.result import EagerResult

from tasks.client.answers.answer import Answer
from tasks.client.answers.values import ValueResult
from tasks.client.reader.chunks import Chunk, call_chunk
from tasks.client.reader.status import CeleryState, RequestStatus
from tasks.client.reader.stream import ChunkStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator


class EagerStream(ValueResult, EagerResult):
    """An eager result with the methods of a real one. Its stream has the whole answer as one chunk."""

    def stream(self, *_: Any, **__: Any) -> ChunkStream:
        """Return a chunk of the reasoning, one of each call, and one of the whole text; raises the request's error."""
        return ChunkStream(self._chunks(), self.astream)

    def _chunks(self) -> Generator[Chunk, None, None]:
        answer = self.get()
        if answer["reasoning"]:
            yield Chunk(text=answer["reasoning"], index=0, kind="reasoning")
        for number, call in enumerate(answer["tool_calls"] or ()):
            yield call_chunk(number, call, 0)
        yield Chunk(
            text=answer["text"],
            index=0,
            logprobs=answer["logprobs"],
            finish_reason=answer["finish_reason"],
            usage=answer["usage"],
            timing=answer["timing"],
            warnings=answer.get("warnings"),
        )

    async def astream(self, *_: Any, **__: Any) -> AsyncIterator[Chunk]:
        """Do as :meth:`stream` for asyncio."""
        for chunk in self._chunks():
            yield chunk

    def __await__(self) -> Generator[Any, None, Any]:
        """Return the answer, as :meth:`get` does."""
        return self._answer().__await__()

    async def _answer(self) -> Any:
        return self.get()

    @property
    def status(self) -> CeleryState:
        """Celery's state. Called, it returns the status of a request that has ended."""
        return CeleryState(self.state, self._look)

    def _look(self) -> RequestStatus:
        if not self.successful():
            return RequestStatus(state="ended", error_code=getattr(self._result, "code", None))
        answer = self._result
        return RequestStatus(
            state="ended",
            worker=answer["worker"],
            attempt=answer["attempt"],
            tokens=answer["usage"].get("completion_tokens", 0),
            finish_reason=answer.get("finish_reason"),
        )

    def position(self) -> None:
        """Return ``None``: it does not wait."""


def eager_result(result: Any, response_model: Any = None) -> EagerStream:
    """Return the result of ``apply`` with the properties of a real one: plain data, streams, the request's response model."""
    value = result._result
    found = value.data if isinstance(value, Answer) else value
    made = EagerStream(result.id, found, result.state, traceback=result.traceback, name=result.name)
    made.response_model = response_model
    return made
