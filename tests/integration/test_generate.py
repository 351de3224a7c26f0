"""The main job: ``delay``, ``stream`` and ``get`` through Redis, a worker and an engine process."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tasks.engine.fake import chat_prompt, fake_text
from tasks.errors import InvalidRequest
from tasks.messages.answer import usage_of
from tests.support import wait_until

if TYPE_CHECKING:
    from celery import Celery

    from tasks.client.reader.chunks import Chunk
    from tasks.client.result import GenerateResult
    from tasks.generate import GenerateTask
    from tests.conftest import StartWorker
    from tests.support import Worker

pytestmark = pytest.mark.xdist_group("generate")
WAIT_S = 60.0


@pytest.fixture(scope="module")
def generate(shared_app: Celery) -> GenerateTask:
    from tasks import generate

    return generate


@pytest.fixture(scope="module", autouse=True)
def node(shared_worker: StartWorker) -> Worker:
    """One worker with eight slots, whose first model is loaded."""
    return shared_worker("-c", "8", env={"CELERY_MLX_MODELS": "fake:10", "CELERY_MLX_HEARTBEAT_S": "0.2"})


def read(result: GenerateResult) -> list[Chunk]:
    return list(result.stream(timeout=WAIT_S))


def text_of(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def steps_of(worker: Worker, model: str) -> int:
    """Decode steps of a model's engine so far, by the worker's own record."""
    record = worker.record()
    assert record is not None
    return next((engine.steps for engine in record.engines if engine.model == model), 0)


def test_reasoning_is_no_part_of_the_text(generate: GenerateTask) -> None:
    """What the model thinks comes in chunks of its own, is a field of the answer, and reaches no next link of a chain."""
    ask: dict[str, Any] = {"model": "fake:10", "max_tokens": 12, "seed": 5}
    result = generate.delay(prompt="!think@5 hello", **ask)
    chunks = read(result)
    answer = result.get(timeout=WAIT_S)
    thought = fake_text("!think@5 hello", 5, 5)
    assert text_of([chunk for chunk in chunks if chunk.kind == "reasoning"]) == answer["reasoning"] == thought
    assert text_of([chunk for chunk in chunks if chunk.kind == "content"]) == answer["text"]
    assert thought + answer["text"] == fake_text("!think@5 hello", 5, 12)
    assert chunks[-1].usage == answer["usage"] == usage_of(2, 0, 12, 5)
    link = generate.s(prompt="[{previous}]", **ask)
    chained = (generate.s(prompt="!think@5 hello", **ask) | link).delay().get(timeout=WAIT_S)
    assert chained["text"] == fake_text(f"[{answer['text']}]", 5, 12)


def test_stream_and_get_say_the_same(generate: GenerateTask, node: Worker) -> None:
    """The stream's whole text is the result's, each index comes once and in order, and the end says why."""
    result = generate.delay(prompt="hello", model="fake:10", max_tokens=20, seed=5)
    chunks = read(result)
    answer = result.get(timeout=WAIT_S)
    assert text_of(chunks) == answer["text"] == fake_text("hello", 5, 20)
    indices = [chunk.index + n for chunk in chunks for n in range(len(chunk.ids))]
    assert indices == list(range(20))
    assert chunks[-1].finish_reason == answer["finish_reason"] == "length"
    assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].usage == answer["usage"]
    assert answer["usage"] == usage_of(1, 0, 20, 0)
    assert (answer["model"], answer["worker"], answer["attempt"]) == ("fake:10", node.node, 1)
    assert set(answer["timing"]) == {"queued_ms", "first_token_ms", "total_ms"}
    assert 0 < answer["timing"]["first_token_ms"] < answer["timing"]["total_ms"]
    assert answer["timing"]["queued_ms"] > 0


def test_messages(generate: GenerateTask) -> None:
    """A conversation is answered through the model's template, with its defaults where nothing was said."""
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
    answer = generate.delay(messages=messages, model="fake:0").get(timeout=WAIT_S)
    assert answer["text"] == fake_text(chat_prompt(messages), None, 512)


def test_three_readers(generate: GenerateTask) -> None:
    """Three readers at once, one of them of asyncio, get the same whole text each."""
    result = generate.delay(prompt="three", model="fake:10", max_tokens=30)

    async def aread() -> str:
        return "".join([chunk.text async for chunk in result.astream(timeout=WAIT_S)])

    texts: list[str] = []
    readers = [
        threading.Thread(target=lambda: texts.append(text_of(read(result)))),
        threading.Thread(target=lambda: texts.append(text_of(read(generate.AsyncResult(result.id))))),
        threading.Thread(target=lambda: texts.append(asyncio.run(aread()))),
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(WAIT_S)
    assert texts == [result.get(timeout=WAIT_S)["text"]] * 3


def test_asyncio_from_end_to_end(generate: GenerateTask) -> None:
    """``adelay`` sends and ``aapply_async`` takes Celery's options; what is wrong is raised where it is awaited."""

    async def main() -> list[str]:
        results = await asyncio.gather(
            *(generate.adelay(prompt="loop", model="fake:1", max_tokens=5, seed=n) for n in range(20)),
            generate.aapply_async(kwargs={"prompt": "later", "model": "fake:1", "max_tokens": 5}, task_id="of-my-own"),
        )
        assert results[-1].id == "of-my-own"
        with pytest.raises(InvalidRequest, match="max_tokens"):
            await generate.adelay(prompt="none", max_tokens=0)
        return [(await result)["text"] for result in results]

    *same, other = asyncio.run(main())
    assert [*same, other] == [*(fake_text("loop", n, 5) for n in range(20)), fake_text("later", None, 5)]


def test_before_in_the_middle_and_after(generate: GenerateTask) -> None:
    """It does not matter when a reader begins: before the task starts, in the middle of it, or after its end."""
    before: list[str] = []
    result = generate.apply_async(kwargs={"prompt": "late", "model": "fake:10", "max_tokens": 50}, countdown=0.5)
    reader = threading.Thread(target=lambda: before.append(text_of(read(result))))
    reader.start()
    chunks = result.stream(timeout=WAIT_S)
    assert next(chunks).index == 0
    middle = text_of(read(generate.AsyncResult(result.id)))
    reader.join(WAIT_S)
    after = text_of(read(generate.AsyncResult(result.id)))
    assert before == [fake_text("late", None, 50)]
    assert middle == after == result.get(timeout=WAIT_S)["text"] == before[0]


def test_eight_at_once_are_one_batch(generate: GenerateTask, node: Worker) -> None:
    """Eight requests of 20 tokens take about 20 engine steps in all, and not 160."""
    # A model that nothing else here uses: its engine counts from nought, and loads until all eight wait for it.
    alone = "fake:10:load_s=6"
    results = [generate.delay(prompt=f"batch {number}", model=alone, max_tokens=20) for number in range(8)]
    texts = [result.get(timeout=WAIT_S)["text"] for result in results]
    assert texts == [fake_text(f"batch {number}", None, 20) for number in range(8)]
    wait_until(lambda: steps_of(node, alone) >= 20)
    assert steps_of(node, alone) <= 60


def test_an_instant_engine_loses_no_token(generate: GenerateTask) -> None:
    """However quick the engine is, each of a thousand readers sees the first token of its request."""
    for begin in range(0, 1000, 50):
        numbers = range(begin, begin + 50)
        results = [generate.delay(prompt=f"instant {number}", model="fake:0", max_tokens=2) for number in numbers]
        for number, result in zip(numbers, results, strict=True):
            assert text_of(read(result)) == fake_text(f"instant {number}", None, 2)


def test_parameters_reach_the_engine(generate: GenerateTask) -> None:
    """Stop strings, seeds and log-probabilities do what they say, for each request of one batch by itself."""
    whole = fake_text("mixed", 1, 20)
    stop = whole.split()[3]
    common: dict[str, Any] = {"prompt": "mixed", "model": "fake:10", "max_tokens": 20}
    stopped = generate.delay(**common, seed=1, stop=[stop])
    other = generate.delay(**common, seed=2)
    scored = generate.delay(**common, seed=1, logprobs=True, top_logprobs=3)
    chunks = read(stopped)
    assert text_of(chunks) == stopped.get(timeout=WAIT_S)["text"] == whole.partition(stop)[0]
    assert chunks[-1].finish_reason == "stop"
    assert other.get(timeout=WAIT_S)["text"] == fake_text("mixed", 2, 20)
    logprobs = scored.get(timeout=WAIT_S)["logprobs"]
    assert len(logprobs) == 20
    assert {len(logprob["top_logprobs"]) for logprob in logprobs} == {3}
    assert [score for chunk in read(scored) for score in chunk.logprobs or []] == logprobs


def test_another_worker_shares_the_work(generate: GenerateTask, node: Worker, shared_worker: StartWorker) -> None:
    """With a second worker requests that fill the first one's slots go to the second, and none waits or is lost."""
    second = shared_worker("-c", "8", "-Q", "tier-under-3B")
    results = [generate.delay(prompt=f"two {number}", model="fake:100", max_tokens=50) for number in range(16)]
    answers = [result.get(timeout=WAIT_S) for result in results]
    assert [answer["text"] for answer in answers] == [fake_text(f"two {number}", None, 50) for number in range(16)]
    assert {answer["worker"] for answer in answers} == {node.node, second.node}
    assert [answer["attempt"] for answer in answers] == [1] * 16
