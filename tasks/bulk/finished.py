"""A finished line, and its record in the output: in OpenAI's shape, or plain."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.bulk.line import EMBEDDINGS, RERANKS
from tasks.client.answers.openai_shape import chat_logprobs, completion_logprobs, message_of, openai_reason
from tasks.errors import Cancelled, DeadlineExceeded, Expired

if TYPE_CHECKING:
    from tasks.bulk.line import BadLine, Line
    from tasks.client.answers.answer import Answer
    from tasks.errors import GenerationError

#: Errors that OpenAI writes beside the response, since there was none.
_WITHOUT_RESPONSE = {
    Expired.code: "batch_expired",
    DeadlineExceeded.code: "batch_expired",
    Cancelled.code: "batch_cancelled",
}


@dataclass(frozen=True, slots=True)
class Finished:
    """One line with its answer, or with its error.

    ``id`` is the line's own (``custom_id`` or ``id``), or its number.
    """

    line: Line | BadLine
    task_id: str
    answer: Answer | None = None
    error: GenerationError | None = None

    @property
    def id(self) -> str | None:
        """The line's id."""
        return self.line.id

    @property
    def text(self) -> str:
        """The answer's text; empty where there is none, as for vectors."""
        return str(self.answer.get("text", "")) if self.answer is not None else ""

    def record(self) -> dict[str, Any]:
        """Return the line for the output."""
        return self._openai() if self.line.shape == "openai" else self._plain()

    def _plain(self) -> dict[str, Any]:
        head = {"id": self.id, "task_id": self.task_id}
        if self.error is not None:
            return {**head, "error": {"code": self.error.code, "message": str(self.error)}}
        assert self.answer is not None
        return {**head, **self.answer.data}

    def _openai(self) -> dict[str, Any]:
        head = {"id": f"batch_req_{self.task_id}", "custom_id": self.id}
        if self.error is None:
            return {**head, "response": self._response(200, self._body()), "error": None}
        code = _WITHOUT_RESPONSE.get(self.error.code)
        if code is not None:
            return {**head, "response": None, "error": {"code": code, "message": str(self.error)}}
        kind = "invalid_request_error" if self.error.http_status < 500 else "server_error"
        body = {"error": {"message": str(self.error), "type": kind, "param": None, "code": self.error.code}}
        return {**head, "response": self._response(self.error.http_status, body), "error": None}

    def _response(self, status: int, body: dict[str, Any]) -> dict[str, Any]:
        return {"status_code": status, "request_id": self.task_id, "body": body}

    def _body(self) -> dict[str, Any]:
        assert self.answer is not None
        answer = self.answer.data
        if self.line.url == EMBEDDINGS:
            return {name: answer[name] for name in ("object", "data", "model", "usage")}
        if self.line.url == RERANKS:
            kept = ("model", "results", "usage", "warnings")
            return {"id": f"rerank-{self.task_id}"} | {name: answer[name] for name in kept if name in answer}
        is_chat = self.line.url.endswith("/chat/completions")
        logprobs = answer.get("logprobs")
        choice: dict[str, Any] = {"index": 0, "finish_reason": openai_reason(answer["finish_reason"])}
        if is_chat:
            message = message_of(answer["text"], answer.get("reasoning"), answer.get("tool_calls"))
            choice |= {"message": message, "logprobs": chat_logprobs(logprobs)}
        else:
            choice |= {"text": answer["text"], "logprobs": completion_logprobs(logprobs)}
        return {
            "id": f"{'chatcmpl' if is_chat else 'cmpl'}-{self.task_id}",
            "object": "chat.completion" if is_chat else "text_completion",
            "created": int(time.time()),
            "model": answer["model"],
            "choices": [choice],
            "usage": _usage(answer["usage"]),
        }


def _usage(usage: dict[str, Any]) -> dict[str, Any]:
    """The usage, with OpenAI's name for tokens of a cached prompt."""
    rest = {name: value for name, value in usage.items() if name != "cached_tokens"}
    return {**rest, "prompt_tokens_details": {"cached_tokens": usage.get("cached_tokens", 0)}}
