"""What a line says, in both shapes, and which lines fail alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tasks.bulk.line import BadLine, Line, read_line

BATCH: dict[str, Any] = {
    "custom_id": "request-1",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {
        "model": "fake:0",
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "Hello world!"},
        ],
        "max_tokens": 1000,
    },
}


def text(record: Any) -> bytes:
    return json.dumps(record).encode()


def test_a_batch_line() -> None:
    """The line of OpenAI's documentation is a request with its body's parameters."""
    line = read_line(1, text(BATCH), {})
    assert isinstance(line, Line)
    assert (line.id, line.shape, line.url) == ("request-1", "openai", "/v1/chat/completions")
    assert line.values == BATCH["body"]


def test_a_completion() -> None:
    """The other path takes a prompt."""
    record = {**BATCH, "url": "/v1/completions", "body": {"model": "fake:0", "prompt": "Once"}}
    line = read_line(1, text(record), {"max_tokens": 5})
    assert isinstance(line, Line)
    assert line.values == {"model": "fake:0", "prompt": "Once", "max_tokens": 5}


def test_what_the_gateway_takes() -> None:
    """Fields that its endpoints ignore, and the older interface's number of log-probabilities, are taken in a line, too."""
    ignored = {"store": True, "verbosity": "low", "safety_identifier": "x", "service_tier": "flex", "stream": False}
    chat = read_line(1, text({**BATCH, "body": {**BATCH["body"], **ignored}}), {})
    assert isinstance(chat, Line)
    assert chat.values == BATCH["body"]
    asked = {"prompt": "Once", "logprobs": 2, "echo": False, "store": True}
    completion = read_line(1, text({**BATCH, "url": "/v1/completions", "body": asked}), {})
    assert isinstance(completion, Line)
    assert completion.values == {"prompt": "Once", "logprobs": True, "top_logprobs": 2}
    plain = read_line(1, text({"prompt": "Once", "store": True}), {})
    assert isinstance(plain, BadLine)


def test_vectors() -> None:
    """A third path makes vectors, by the task for that; defaults for text are none of its parameters."""
    record = {**BATCH, "url": "/v1/embeddings", "body": {"input": ["Once", "twice"]}}
    line = read_line(1, text(record), {"max_tokens": 5, "model": "fake:0:dimensions=2"})
    assert isinstance(line, Line)
    assert line.values == {"input": ["Once", "twice"], "model": "fake:0:dimensions=2"}
    assert line.task == "tasks.embed"


def test_a_ranking() -> None:
    """A fourth path ranks documents. They are a part of what is read ahead."""
    body = {"query": "Once", "documents": ["Once upon", {"text": "a time"}], "top_n": 1}
    line = read_line(
        1, text({**BATCH, "url": "/v1/rerank", "body": body}), {"max_tokens": 5, "model": "fake:0:ranks=1"}
    )
    assert isinstance(line, Line)
    assert line.values == {**body, "model": "fake:0:ranks=1"}
    assert (line.task, line.prompt) == ("tasks.rerank", [body["query"], body["documents"]])


@pytest.mark.parametrize(("given", "line_id"), [({"id": "a"}, "a"), ({"id": 7}, "7"), ({}, "3")])
def test_plain_parameters(given: dict[str, Any], line_id: str) -> None:
    """A plain line has an id, or is called by its number; what it says goes before the defaults."""
    line = read_line(3, text({"prompt": "x", "max_tokens": 2, **given}), {"max_tokens": 9, "seed": 1})
    assert isinstance(line, Line)
    assert (line.id, line.shape) == (line_id, "plain")
    assert line.values == {"prompt": "x", "max_tokens": 2, "seed": 1}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (b"\xff\xfe", "byte 1 is not UTF-8"),
        (b"{", "not JSON"),
        (b"[1]", "a JSON list"),
        (b"[" * 100_000, "not JSON"),
        (text({**BATCH, "method": "GET"}), "method='GET': use \"POST\""),
        (text({**BATCH, "url": "/v1/images"}), "url='/v1/images': use /v1/chat/completions or /v1/completions or"),
        (text({**BATCH, "url": "/v1/embeddings"}), "body: /v1/embeddings needs input"),
        (text({**BATCH, "url": "/v1/embeddings", "body": {"input": [""]}}), r"input\[0\] is empty"),
        (text({**BATCH, "url": "/v1/rerank"}), "body: /v1/rerank needs query"),
        (text({**BATCH, "url": "/v1/rerank", "body": {"query": "x"}}), "documents is missing; give a list"),
        (text({**BATCH, "body": "x"}), "body: expected an object"),
        (text({**BATCH, "url": "/v1/completions"}), "needs prompt"),
        (text({**BATCH, "custom_id": None}), "custom_id=None: use text"),
        (text({**BATCH, "custom_id": "x" * 600}), "use text of 1 to 512 characters"),
        (text({**BATCH, "body": {**BATCH["body"], "stream": True}}), "stream"),
        (text({"prompt": "x", "id": []}), r"id=\[\]: use text"),
        (text({"prompt": "x", "top_p": 7}), "top_p=7"),
        (text({"id": "a"}), "neither messages nor prompt"),
    ],
)
def test_bad_lines(given: bytes, says: str) -> None:
    """Each says its number, the field and the remedy."""
    line = read_line(12, given, {})
    assert isinstance(line, BadLine)
    with pytest.raises(type(line.error), match=f"^line 12: .*{says}"):
        raise line.error


def test_a_bad_line_keeps_its_id() -> None:
    """So that the error comes back under it."""
    line = read_line(1, text({**BATCH, "url": "/v2"}), {})
    assert (line.id, line.shape) == ("request-1", "openai")
