"""What is written of a line: OpenAI's objects, checked by OpenAI's own types, or plain ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from openai.types.chat import ChatCompletion
from openai.types.completion import Completion

from tasks.bulk.finished import Finished
from tasks.bulk.line import BadLine, Line, read_line
from tasks.client.answers.answer import Answer
from tasks.errors import Cancelled, EngineFailed, Expired, GenerationError, InvalidRequest

if TYPE_CHECKING:
    from pydantic import BaseModel

ANSWER = Answer(
    text="Hi",
    reasoning="thought",
    finish_reason="stop",
    usage={"prompt_tokens": 5, "cached_tokens": 2, "completion_tokens": 3, "total_tokens": 8},
    timing={},
    logprobs=None,
    model="fake:0",
    worker="a@b",
    attempt=1,
)
CHAT = Line(1, "request-1", "openai", {})


def test_a_chat() -> None:
    """The response's body is a chat completion."""
    record = Finished(CHAT, "bulk-0-1", ANSWER).record()
    assert record.keys() == {"id", "custom_id", "response", "error"}
    assert (record["id"], record["custom_id"], record["error"]) == ("batch_req_bulk-0-1", "request-1", None)
    assert record["response"].keys() == {"status_code", "request_id", "body"}
    body = ChatCompletion.model_validate(record["response"]["body"], strict=True)
    assert body.choices[0].message.content == "Hi"
    assert body.usage is not None
    assert body.usage.prompt_tokens_details is not None
    assert body.usage.prompt_tokens_details.cached_tokens == 2


def test_a_completion() -> None:
    """The other path has the other object."""
    line = Line(1, "a", "openai", {}, "/v1/completions")
    body = Completion.model_validate(Finished(line, "bulk-0-1", ANSWER).record()["response"]["body"], strict=True)
    assert body.choices[0].text == "Hi"


def test_a_call() -> None:
    """Functions that the model calls are in the message, as the gateway gives them; without words its content is null."""
    call = {"id": "a1b2c3d4e", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
    answer = Answer(**{**ANSWER.data, "text": "", "tool_calls": [call], "finish_reason": "tool_calls"})
    body = Finished(CHAT, "bulk-0-1", answer).record()["response"]["body"]
    (choice,) = ChatCompletion.model_validate(body, strict=True).choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert [found.model_dump() for found in choice.message.tool_calls or ()] == [call]


@pytest.mark.parametrize(("url", "shape"), [("/v1/chat/completions", ChatCompletion), ("/v1/completions", Completion)])
def test_log_probabilities_and_a_deadline(url: str, shape: type[BaseModel]) -> None:
    """Both interfaces have their own shape of log-probabilities, and neither a finish reason for a time that is over."""
    logprob = {"token": "Hi", "logprob": -0.5, "top_logprobs": [{"token": "Ho", "logprob": -1.5}]}
    answer = Answer(**{**ANSWER.data, "logprobs": [logprob], "finish_reason": "deadline"})
    body = Finished(Line(1, "a", "openai", {}, url), "bulk-0-1", answer).record()["response"]["body"]
    found: Any = shape.model_validate(body, strict=True)
    assert found.choices[0].finish_reason == "length"
    older = {"tokens": ["Hi"], "token_logprobs": [-0.5], "top_logprobs": [{"Ho": -1.5}], "text_offset": [0]}
    newer = {"content": [logprob], "refusal": None}
    assert body["choices"][0]["logprobs"] == (newer if shape is ChatCompletion else older)


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [(InvalidRequest("x"), 400, "invalid_request_error"), (EngineFailed("x"), 500, "server_error")],
)
def test_errors(error: GenerationError, status: int, kind: str) -> None:
    """A request that was refused or failed has a response with the status, and OpenAI's error in its body."""
    record = Finished(CHAT, "bulk-0-1", error=error).record()
    assert record["error"] is None
    assert record["response"]["status_code"] == status
    assert record["response"]["body"]["error"] == {"message": "x", "type": kind, "param": None, "code": error.code}


@pytest.mark.parametrize(("error", "code"), [(Expired("x"), "batch_expired"), (Cancelled("x"), "batch_cancelled")])
def test_without_response(error: GenerationError, code: str) -> None:
    """What was never answered has an error beside the response, as OpenAI writes it."""
    record = Finished(CHAT, "bulk-0-1", error=error).record()
    assert (record["response"], record["error"]) == (None, {"code": code, "message": "x"})


def test_plain() -> None:
    """A plain line gets the answer's own fields, or the error's code."""
    line = Line(4, "a", "plain", {})
    assert Finished(line, "bulk-0-4", ANSWER).record() == {"id": "a", "task_id": "bulk-0-4", **ANSWER.data}
    bad = read_line(4, b"{", {})
    assert isinstance(bad, BadLine)
    record: dict[str, Any] = Finished(bad, "bulk-0-4", error=bad.error).record()
    assert record["error"]["code"] == "invalid_request"
