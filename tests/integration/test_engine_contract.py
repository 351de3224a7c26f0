"""What every engine promises its worker: the fake one and a real one, through the process and the pipe."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.parts.tiny_model import end_id, make_tiny_model
from tasks.engine.generation.memory import MemoryBound
from tasks.messages.engine import EngineConfig, Resize, Resume, Sampling
from tests.engine_client import GREEDY, EngineClient, resume_from

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.engine_client import Answer

KINDS = ["fake", "tiny"]
MAX_BATCH = 8


@pytest.fixture(scope="module", params=[pytest.param(kind, marks=pytest.mark.xdist_group(kind)) for kind in KINDS])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineClient]:
    """An engine of each kind, shared by this module's tests."""
    if request.param == "fake":
        config = EngineConfig(model="fake:2", max_batch=MAX_BATCH)
    else:
        folder = make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
        config = EngineConfig(model="tiny", source=str(folder), max_batch=MAX_BATCH, prompt_cache_bytes=1 << 20)
    with EngineClient(config) as client:
        assert client.ready.model == config.model
        yield client


@pytest.fixture
def endless(engine: EngineClient) -> Sampling:
    """Greedy, and never an end token: the answer is as long as it may be."""
    source = engine.process.config.source
    return Sampling(temperature=0.0, logit_bias={end_id(Path(source)): -1000.0} if source else {})


def sampled(engine: EngineClient, seed: int) -> Sampling:
    """Drawn at temperature 1 with this seed, and never an end token."""
    source = engine.process.config.source
    return Sampling(temperature=1.0, seed=seed, logit_bias={end_id(Path(source)): -1000.0} if source else {})


def test_ready_says_what_the_worker_plans_with(engine: EngineClient) -> None:
    """Sizes, context, revision and process id are there and positive."""
    ready = engine.ready
    assert ready.context_tokens > 100
    assert ready.weights_bytes > 0
    assert ready.kv.bytes_per_token > 0
    assert ready.revision
    assert ready.pid == engine.process.pid
    assert ready.load_s >= 0
    assert ready.accelerator in {"fake", "cpu", "metal", "cuda"}


def test_events_come_in_order(engine: EngineClient, endless: Sampling) -> None:
    """Started, every index once and in order, then one end whose counts agree."""
    answer = engine.ask("once upon a time", 12, sampling=endless)
    assert answer.started is not None
    assert answer.finished is not None
    assert answer.started.prompt_tokens == answer.finished.prompt_tokens > 0
    assert len(answer.started.prompt_hash) == 32
    assert len(answer.ids) == answer.finished.completion_tokens == 12
    assert answer.reason == "length"
    assert answer.steps == sorted(answer.steps)


def test_messages_and_prompt_are_different_prompts(engine: EngineClient) -> None:
    """A chat goes through the model's template; raw text does not."""
    chat = engine.ask([{"role": "user", "content": "hello"}], 1)
    raw = engine.ask("hello", 1)
    assert chat.started is not None
    assert raw.started is not None
    assert chat.started.prompt_hash != raw.started.prompt_hash
    assert chat.started.prompt_tokens > raw.started.prompt_tokens


def test_a_burst_runs_as_one_batch(engine: EngineClient, endless: Sampling) -> None:
    """Eight requests of 100 tokens take about 100 steps in all, not 800; more where a busy machine brings them one by one."""
    before = engine.steps
    with engine.held():
        tasks = [engine.submit(f"request {number}", 100, sampling=endless) for number in range(8)]
    for task_id in tasks:
        assert len(engine.answer(task_id).ids) == 100
    assert engine.steps - before <= 300


def test_a_request_joins_a_running_batch(engine: EngineClient, endless: Sampling) -> None:
    """A short request that comes while a long one runs ends long before it."""
    long = engine.submit("a long one", None, sampling=endless)
    engine.tokens(long, 3)
    short = engine.ask("a short one", 3, sampling=endless)
    assert short.reason == "length"
    assert not engine.answers[long].done
    engine.abort(long)
    engine.answer(long)


def test_more_requests_than_slots_wait_in_line(engine: EngineClient, endless: Sampling) -> None:
    """Never more than max_batch run at once, and all are answered."""
    tasks = [engine.submit(f"request {number}", 4, sampling=endless) for number in range(3 * MAX_BATCH)]
    for task_id in tasks:
        assert engine.answer(task_id).reason == "length"
    assert max(output.running for output in engine.outputs) <= MAX_BATCH


def test_the_same_seed_gives_the_same_text_alone_and_in_company(engine: EngineClient) -> None:
    """What is drawn is a function of seed and position; neighbours change nothing."""
    alone = engine.ask("seeded", 24, sampling=sampled(engine, 7))
    tasks = [engine.submit("seeded", 24, sampling=sampled(engine, seed)) for seed in (1, 7, 2, 3)]
    answers = [engine.answer(task_id) for task_id in tasks]
    assert answers[1].text == alone.text
    assert len({answer.text for answer in answers}) == len(answers)


def test_greedy_is_repeatable(engine: EngineClient) -> None:
    """The same request gives the same answer again."""
    assert engine.ask("again", 16).ids == engine.ask("again", 16).ids


def test_a_stop_string_over_token_borders_ends_the_answer(engine: EngineClient, endless: Sampling) -> None:
    """The text ends before the stop string, and no part of it was ever released."""
    whole = engine.ask("stop here", 32, sampling=endless)
    middle = len(whole.text) // 2
    stop = whole.text[middle : middle + 6]
    answer = engine.ask("stop here", 32, sampling=endless, stop=(stop, "never said"))
    assert answer.reason == "stop"
    assert answer.text == whole.text[: whole.text.index(stop)]
    assert answer.ids == whole.ids[: len(answer.ids)]


def test_a_half_matched_stop_string_is_released_at_the_end(engine: EngineClient, endless: Sampling) -> None:
    """What was held back because it might have been a stop string is part of the text when it was not."""
    whole = engine.ask("half a stop", 16, sampling=endless)
    answer = engine.ask("half a stop", 16, sampling=endless, stop=(whole.text[-3:] + "and no further",))
    assert answer.text == whole.text
    assert answer.reason == "length"


@pytest.mark.parametrize("reason", ["cancelled", "deadline"])
def test_an_abort_ends_a_running_request_after_what_it_said(
    engine: EngineClient, endless: Sampling, reason: str
) -> None:
    """The end carries the abort's reason and the number of tokens that came before."""
    task_id = engine.submit("to be cut", None, sampling=endless)
    engine.tokens(task_id, 5)
    engine.abort(task_id, reason)
    answer = engine.answer(task_id)
    assert answer.reason == reason
    assert answer.finished is not None
    assert 5 <= answer.finished.completion_tokens == len(answer.ids)


def test_an_aborted_request_frees_its_slot(engine: EngineClient, endless: Sampling) -> None:
    """With a full batch, a waiting request starts once another is aborted; an aborted waiting one never starts."""
    running = [engine.submit(f"long {number}", None, sampling=endless) for number in range(MAX_BATCH)]
    for task_id in running:
        engine.tokens(task_id, 1)
    dropped = engine.submit("dropped", 4, sampling=endless)
    waiting = engine.submit("waiting", 4, sampling=endless)
    engine.abort(dropped)
    assert engine.answer(dropped).reason == "cancelled"
    assert engine.answers[dropped].ids == []
    engine.abort(running[0])
    assert engine.answer(waiting).reason == "length"
    for task_id in running:
        engine.abort(task_id)
        assert engine.answer(task_id).reason == "cancelled"


def test_an_abort_of_an_unknown_request_is_ignored(engine: EngineClient) -> None:
    """Nothing is said about it, and the engine goes on."""
    engine.abort("nobody")
    assert engine.ask("still there", 2).done


def test_a_resumed_request_goes_on_where_it_stood(engine: EngineClient) -> None:
    """After every token: earlier and new text are together the uninterrupted text, and ids and indices go on."""
    sampling = sampled(engine, 11)
    whole = engine.ask("to be resumed", 18, sampling=sampling)
    tasks = []
    for count in range(1, 18):
        resume = resume_from(whole, count, engine.ready.revision)
        tasks.append((count, engine.submit("to be resumed", 18, sampling=sampling, resume=resume)))
    for count, task_id in tasks:
        answer = engine.answer(task_id)
        assert "".join(whole.texts[:count]) + answer.text == whole.text
        assert whole.ids[:count] + answer.ids == whole.ids
        assert answer.finished is not None
        assert answer.finished.completion_tokens == 18


def test_a_resume_within_a_half_matched_stop_string(engine: EngineClient, endless: Sampling) -> None:
    """Text that the first attempt held back is neither lost nor said twice, whether the stop string completes or not."""
    whole = engine.ask("stop and resume", 24, sampling=endless)
    start = len(whole.text) // 2
    for stop in (whole.text[start : start + 8], whole.text[start : start + 7] + "\0"):
        first = engine.ask("stop and resume", 24, sampling=endless, stop=(stop,))
        for count in range(1, len(first.ids)):
            resume = resume_from(first, count, engine.ready.revision)
            answer = engine.ask("stop and resume", 24, sampling=endless, stop=(stop,), resume=resume)
            assert "".join(first.texts[:count]) + answer.text == first.text
            assert answer.reason == first.reason


def test_a_resume_whose_tokens_are_complete_ends_at_once(engine: EngineClient, endless: Sampling) -> None:
    """By length or by stop string: nothing is generated, and text that was not said yet is."""
    whole = engine.ask("complete", 8, sampling=endless)
    before = engine.steps
    resume = resume_from(whole, 8, engine.ready.revision)
    answer = engine.ask("complete", 8, sampling=endless, resume=resume)
    assert (answer.reason, answer.ids, answer.text) == ("length", [], "")
    silent = Resume(ids=resume.ids, characters={}, revision=resume.revision, prompt_hash=resume.prompt_hash)
    stop = whole.text[-4:]
    answer = engine.ask("complete", 20, sampling=endless, stop=(stop,), resume=silent)
    assert (answer.reason, answer.ids, answer.text) == ("stop", [], whole.text[: whole.text.index(stop)])
    assert engine.steps == before


@pytest.mark.parametrize("field", ["revision", "prompt_hash"])
def test_a_resume_of_something_else_is_refused(engine: EngineClient, field: str) -> None:
    """Another revision or another prompt than the first attempt's is the error cannot_resume, which names both."""
    values: dict[str, str] = {"revision": engine.ready.revision, "prompt_hash": "0" * 32}
    if field == "revision":
        started = engine.ask("refused", 1).started
        assert started is not None
        values = {"revision": "another", "prompt_hash": started.prompt_hash}
    answer = engine.ask(
        "refused",
        4,
        resume=Resume(ids=[1], characters={}, revision=values["revision"], prompt_hash=values["prompt_hash"]),
    )
    assert answer.failed is not None
    assert answer.failed.code == "cannot_resume"
    assert values[field] in answer.failed.message


def test_a_request_beyond_the_context_is_refused_with_the_numbers(engine: EngineClient) -> None:
    """Prompt and max_tokens, and the context that they do not fit."""
    context = engine.ready.context_tokens
    answer = engine.ask("five words are not many", context)
    assert answer.failed is not None
    assert answer.failed.code == "context_length_exceeded"
    assert f"max_tokens is {context}:" in answer.failed.message
    assert f"context of {context} tokens" in answer.failed.message


def test_without_max_tokens_the_context_is_the_bound(engine: EngineClient, endless: Sampling) -> None:
    """The request runs on past any default."""
    task_id = engine.submit("on and on", None, sampling=endless)
    engine.tokens(task_id, 40)
    engine.abort(task_id)
    assert engine.answer(task_id).reason == "cancelled"


def test_a_bad_request_disturbs_nobody(engine: EngineClient, endless: Sampling) -> None:
    """Requests that fail, of several kinds, between requests that run."""
    alone = engine.ask("undisturbed", 16, sampling=endless)
    tasks: list[str] = []
    for _ in range(3):
        tasks.append(engine.submit("undisturbed", 16, sampling=endless))
        bad = [engine.submit("too long", 10**6), engine.submit("", 4)]
    for task_id in bad:
        assert engine.answer(task_id).failed is not None
    for task_id in tasks:
        assert engine.answer(task_id).ids == alone.ids


def test_isolated_requests_run_apart(engine: EngineClient, endless: Sampling) -> None:
    """Suspects share a batch with suspects only, a request that is alone with nobody, and all are answered."""
    kinds = ["", "suspects", "", "alone", "suspects", "", "alone", "suspects"]
    tasks = {
        engine.submit(f"isolated {number}", 12, sampling=endless, isolate=isolate): isolate
        for number, isolate in enumerate(kinds)
    }
    for task_id in tasks:
        assert engine.answer(task_id).reason == "length"
    spans = {task_id: (min(answer.steps), max(answer.steps)) for task_id, answer in _answers(engine, tasks).items()}
    for (one, a), (other, b) in itertools.combinations(tasks.items(), 2):
        if a != b or a == "alone":
            assert spans[one][1] <= spans[other][0] or spans[other][1] <= spans[one][0]


def test_logprobs_come_only_where_asked_for(engine: EngineClient, endless: Sampling) -> None:
    """Beside a request that asks for two alternatives, one that asks for none gets none."""
    asking = Sampling(temperature=0.0, logit_bias=endless.logit_bias, logprobs=True, top_logprobs=2)
    tasks = [engine.submit("logprobs", 6, sampling=sampling) for sampling in (asking, endless)]
    with_logprobs, without = (engine.answer(task_id) for task_id in tasks)
    assert without.logprobs == []
    assert [logprob.id for logprob in with_logprobs.logprobs] == with_logprobs.ids == without.ids
    for choice in with_logprobs.logprobs:
        assert choice.logprob <= 0
        assert len(choice.top) == 2
        assert choice.top[0][2] >= choice.top[1][2]


def test_a_new_budget_is_acknowledged(engine: EngineClient) -> None:
    """An idle engine keeps to it at once; what can never fit is refused with it, until it is raised again."""
    ready = engine.ready
    small = ready.weights_bytes + MemoryBound(0, ready.weights_bytes, ready.kv).margin_bytes + 1000
    for total in (small, 1 << 40):
        engine.process.send(Resize(total))
        engine.wait(lambda: engine.resized[-1:] == [total])  # noqa: B023 - called before the next round
        answer = engine.ask("much", ready.context_tokens // 2, stop=("e",))
        assert (answer.failed is not None and str(small) in answer.failed.message) == (total == small)


def test_the_state_after_the_last_request_is_empty(engine: EngineClient) -> None:
    """The last message says that nothing runs and nothing waits."""
    engine.ask("the last", 3, sampling=GREEDY)
    engine.wait(lambda: (engine.outputs[-1].running, engine.outputs[-1].waiting) == (0, 0))


def _answers(engine: EngineClient, tasks: dict[str, str]) -> dict[str, Answer]:
    return {task_id: engine.answers[task_id] for task_id in tasks}
