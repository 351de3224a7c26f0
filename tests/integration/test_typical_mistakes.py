"""What people try in their first hour: each mistake is answered with what to do instead, before anything is sent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import HTTPException

from examples.fastapi_sse import chat
from tasks import embed, generate, rerank
from tasks.errors import InvalidRequest, NoWorker, UnknownModel

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("producer_app")

MESSAGE = {"role": "user", "content": "hi"}
TEXT: Any = "a"


def delayed(*args: Any, **parameters: Any) -> Callable[[], Any]:
    return lambda: generate.delay(*args, **parameters)


def called(*args: Any, **parameters: Any) -> Callable[[], Any]:
    return lambda: generate(*args, **parameters)


def applied(**options: Any) -> Callable[[], Any]:
    return lambda: generate.apply_async(**options)


@pytest.mark.parametrize(
    ("mistake", "field", "remedy"),
    [
        (delayed(prompt="a", model="smollm"), "model 'smollm'", "did you mean smollm"),
        (delayed(prompt="a", model="gpt-4o-mini"), "model 'gpt-4o-mini'", "To allow it, add it to the file"),
        (
            delayed(prompt="a", model="llama3.2:3b"),
            "model 'llama3.2:3b'",
            "did you mean llama-3.2-3b, llama-3.2-1b or llama-3.3-70b?",
        ),
        (delayed(prompt="a", model="Qwen/Qwen3-4B"), "model 'Qwen/Qwen3-4B'", "did you mean"),
        (delayed(prompt="a", max_token=3), "max_token=3", "did you mean max_tokens?"),
        (delayed(prompt="a", temprature=1), "temprature=1", "did you mean temperature?"),
        (delayed(prompt="a", n=2), "n=2: not a field", "send the request n times"),
        (delayed(prompt="a", stream=True), "stream=True: not a field", "read result.stream()"),
        (delayed(prompt="a", timeout=3), "timeout=3: not a field", "time_limit=seconds"),
        (delayed(messages='[{"role": "user"}]'), "messages=<str>", "json.loads(…)"),
        (delayed(prompt="a", logprobs=5), "logprobs=5", "use logprobs=True, with top_logprobs"),
        (delayed(prompt="a", priority=9), "priority=9: an option", "generate.apply_async(kwargs={…}, priority=…)"),
        (delayed(prompt="a", queue="foo"), "queue=<str>: an option", "generate.apply_async(kwargs={…}, queue=…)"),
        (delayed(prompt="a", countdown=5), "countdown=5: an option", "generate.apply_async(kwargs={…}, countdown=…)"),
        (called("Why?"), "generate cannot be called", "generate.delay(...)"),
        (called(messages=[MESSAGE]), "generate cannot be called", "generate.apply(kwargs={...}) in tests"),
        (lambda: generate.run(prompt="a"), "generate cannot be called", "generate.delay(...)"),
        (lambda: generate.signature(kwargs=TEXT), "kwargs is a str", "give a dictionary"),
        (lambda: embed("a"), "embed cannot be called", "embed.delay(input=[…])"),
        (lambda: embed.si(input="a").type("a"), "embed cannot be called", "embed.apply(kwargs={…}) in tests"),
        (lambda: embed.run(input="a"), "embed cannot be called", "embed.delay(input=[…])"),
        (lambda: embed.map(["a"]), "map, starmap and chunks", "embed.delay(input=[…])"),
        (lambda: embed.bulk(["a"]), "embed has no bulk", "one embed.delay(input=[…])"),
        (lambda: embed.abulk(["a"]), "embed has no bulk", "/v1/embeddings to generate.bulk(…)"),
        (lambda: embed.apply_async({"input": "a"}), "the first argument is a dict", "use delay(…)"),
        (
            lambda: embed.apply_async(kwargs={"input": "a"}, dimensions=3),
            "dimensions: a par",
            "use delay(dimensions=…)",
        ),
        (lambda: rerank("a", ["b"]), "rerank cannot be called", "rerank.delay(query=…, documents=[…])"),
        (lambda: rerank.run(query="a", documents=["b"]), "rerank cannot be called", "rerank.delay(query=…"),
        (lambda: rerank.chunks([("a",)], 1), "map, starmap and chunks", "send a group of rerank.s(…)"),
        (lambda: rerank.bulk(["a"]), "rerank has no bulk", "/v1/rerank to generate.bulk(…)"),
        (delayed([MESSAGE]), "the positional argument is a message", "use messages=[…]"),
        (delayed(messages=MESSAGE), "messages=<dict>", 'send a list of {"role"'),
        (delayed(messages=[{"role": "usr", "content": "a"}]), "messages[0]['role']='usr'", "use system, developer"),
        (delayed(), "neither messages nor prompt", "give exactly one"),
        (delayed(prompt="a", messages=[MESSAGE]), "both messages and prompt", "give exactly one"),
        (delayed(prompt="a", model="smollm2-135m", max_tokens=9000), "max_tokens=9000", "ask for fewer"),
        (applied(kwargs={"prompt": "a"}, max_tokens=3), "max_tokens: a parameter", "put it into kwargs={…}"),
        (applied(prompt="a"), "prompt: a parameter", "use delay(prompt=…)"),
        (applied(kwargs={"prompt": "a"}, priority="low"), "priority='low'", "9"),
        (applied(kwargs={"prompt": "a"}, chord=5), "chord=5", "use chord(header)(body)"),
        (applied(kwargs={"prompt": "a"}, chain=[5]), "chain=[5]", "use chain(…)"),
        (applied(kwargs={"prompt": "a"}, connection=5), "connection=5", "app.connection_for_write()"),
        (applied(kwargs={"prompt": "a"}, producer=5), "producer=5", "app.producer_pool.acquire()"),
        (lambda: generate.map([{"prompt": "a"}]), "map, starmap and chunks", "whose requests run together"),
    ],
)
def test_a_mistake_names_its_field_and_the_remedy(mistake: Callable[[], Any], field: str, remedy: str) -> None:
    """One line with both, where the request is made."""
    with pytest.raises((InvalidRequest, UnknownModel)) as caught:
        mistake()
    said = str(caught.value)
    assert field in said
    assert remedy in said
    assert "\n" not in said


def test_a_model_that_no_worker_carries(caplog: pytest.LogCaptureFixture) -> None:
    """The producer is told which machine would do, and with ``require_worker`` nothing is sent."""
    generate.delay(prompt="a", model="qwen3-8b")
    with pytest.raises(NoWorker) as caught:
        generate.delay(prompt="a", model="qwen3-8b", require_worker=True)
    for said in (caplog.text, str(caught.value)):
        assert "tier-7-13B" in said
        assert "15 GPU cores and 16 GB" in said


def test_a_web_application_without_a_worker() -> None:
    """The client of the FastAPI example gets 503 with the reason, where its request would only wait."""
    with pytest.raises(HTTPException) as caught:
        asyncio.run(chat("Why is the sky blue?"))
    assert caught.value.status_code == 503
    assert "no live worker consumes tier-under-3B" in caught.value.detail


def test_a_queue_of_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """A request for a queue that no worker consumes is sent, and its producer is told."""
    generate.apply_async(kwargs={"prompt": "a"}, queue="celery")
    assert (
        "no live worker consumes the queue 'celery'; the fleet serves no queue at all; the request waits" in caplog.text
    )


def test_what_changes_nothing_is_taken() -> None:
    """Neutral values that other clients send are no mistake."""
    from tasks.client.sending.request import prepare

    neutral = {"n": 1, "stream": False, "tools": None, "stop": None, "max_tokens": None, "user": "x"}
    request = prepare(None, {"messages": [MESSAGE], **neutral}, None, {})
    assert request.parameters.max_tokens
