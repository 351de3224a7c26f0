"""What a model thinks is no part of its answer: real models of two families, in the engine and through a worker."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.parts.catalogue import write_catalogue
from benchmarks.parts.scripted_model import make_scripted_model
from benchmarks.parts.tiny_model import CHAT_TEMPLATE, SPECIAL_TOKENS
from tasks.messages.constraint import Constraint
from tasks.messages.engine import EngineConfig, Resume, Sampling, Tokens
from tests.engine_client import EngineClient
from tests.support import Reader, send_unchecked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from celery import Celery

    from tasks.generate import GenerateTask
    from tasks.messages.answer import Kind
    from tests.conftest import StartWorker

pytestmark = pytest.mark.xdist_group("reasoning")
WAIT_S = 60.0
ASK: list[dict[str, Any]] = [{"role": "user", "content": "1+1?"}]

HARMONY = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>")
#: As gpt-oss's own, it refuses a history with channels in it.
HARMONY_TEMPLATE = (
    "{% for m in messages %}{% if '<|channel|>' in m['content'] %}{{ raise_exception('channels in content') }}{% endif %}"
    "<|start|>{{ m['role'] }}<|message|>{{ m['content'] }}<|end|>{% endfor %}<|start|>assistant"
)
OPENING_TEMPLATE = CHAT_TEMPLATE.replace(
    "assistant\n",
    "assistant\n<think>\n{% if enable_thinking is defined and not enable_thinking %}</think>\n{% endif %}",
)
#: What each model thinks, with its closing marker in bytes: text, though the vocabulary has a token of these characters.
THOUGHTS = {"harmony": "1+1 is é<|end|>", "think": "1+1 is é</think>"}
TEXT = "Two é"
FINAL = ("<|channel|>", "final", "<|message|>", TEXT)


def make_models(folder: Path) -> dict[str, Path]:
    """A model of each family."""
    thoughts = {name: (thought.partition("<")[0], "<", thought.partition("<")[2]) for name, thought in THOUGHTS.items()}
    return {
        "harmony": make_scripted_model(
            folder / "harmony",
            [
                *("<|channel|>", "analysis", "<|message|>"),
                *thoughts["harmony"],
                *("<|end|>", "<|start|>", "assistant"),
                *FINAL,
            ],
            words=("analysis", "assistant", "final"),
            special=(*SPECIAL_TOKENS, *HARMONY),
            end="<|return|>",
            template=HARMONY_TEMPLATE,
        ),
        "think": make_scripted_model(
            folder / "think",
            [*thoughts["think"], "</think>", TEXT],
            added=("<think>", "</think>"),
            template=OPENING_TEMPLATE,
        ),
    }


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module", params=["harmony", "think"])
def engine(request: pytest.FixtureRequest, models: dict[str, Path]) -> Iterator[EngineClient]:
    """An engine of each family."""
    config = EngineConfig(model=request.param, source=str(models[request.param]))
    with EngineClient(config) as client:
        assert client.ready
        yield client


def whole_of(engine: EngineClient) -> dict[Kind, str]:
    """All that this engine's model says."""
    return {"reasoning": THOUGHTS[engine.process.config.model], "content": TEXT}


def said(engine: EngineClient, task_id: str, end: int | None = None) -> dict[Kind, str]:
    """The text of each kind in the events of a request, up to the token ``end``."""
    texts: dict[Kind, str] = {"reasoning": "", "content": ""}
    for output in engine.outputs:
        for event in output.events:
            if isinstance(event, Tokens) and event.task_id == task_id and (end is None or event.index < end):
                texts[event.kind] += event.text
    return texts


def test_the_kinds_come_apart(engine: EngineClient) -> None:
    """Neither marker nor header is in a text, and the same characters in other tokens are."""
    task_id = engine.submit(ASK, 200)
    answer = engine.answer(task_id)
    assert said(engine, task_id) == whole_of(engine)
    assert answer.reason == "stop"


def test_a_resume_at_every_token(engine: EngineClient) -> None:
    """In mid-thought, in a header and in mid-character: of each kind what was said and what follows is the whole text."""
    task_id = engine.submit(ASK, 200)
    whole = engine.answer(task_id)
    assert whole.started is not None
    tasks = []
    for count in range(1, len(whole.ids)):
        before = said(engine, task_id, end=count)
        resume = Resume(
            ids=whole.ids[:count],
            characters={kind: len(text) for kind, text in before.items()},
            revision=engine.ready.revision,
            prompt_hash=whole.started.prompt_hash,
        )
        tasks.append((before, engine.submit(ASK, 200, resume=resume)))
    for before, resumed in tasks:
        engine.answer(resumed)
        after = said(engine, resumed)
        assert {kind: before[kind] + after[kind] for kind in before} == whole_of(engine)


def test_every_length(engine: EngineClient) -> None:
    """Wherever ``max_tokens`` cuts, the two texts begin the whole ones: a thought that was not closed is a thought."""
    whole = engine.ask(ASK, 200)
    tasks = [engine.submit(ASK, count) for count in range(1, len(whole.ids))]
    for task_id in tasks:
        assert engine.answer(task_id).reason == "length"
        texts = said(engine, task_id)
        for kind, text in whole_of(engine).items():
            assert text.startswith(texts[kind].rstrip("\ufffd"))
        assert not texts["content"] or texts["reasoning"] == whole_of(engine)["reasoning"]


def test_stop_strings_end_the_answer_and_not_the_thought(engine: EngineClient) -> None:
    """A thought that mentions a stop string goes on; the answer ends before it."""
    task_id = engine.submit(ASK, 200, stop=("1 is", "o é"))
    assert engine.answer(task_id).reason == "stop"
    assert said(engine, task_id) == whole_of(engine) | {"content": "Tw"}


def test_each_token_has_its_logprob(engine: EngineClient) -> None:
    """Thoughts and markers are tokens as others are."""
    answer = engine.ask(ASK, 200, sampling=Sampling(temperature=0.0, logprobs=True))
    assert [logprob.id for logprob in answer.logprobs] == answer.ids


@pytest.mark.parametrize("budget_tokens", [None, 3])
def test_a_thought_and_then_data(engine: EngineClient, budget_tokens: int | None) -> None:
    """Thought and answer are one grammar: the thought is free, its budget closes it, a resume changes nothing."""
    bounds: dict[str, Any] = {
        "constraint": Constraint(kind="choice", value=json.dumps(["Two", TEXT, "One"])),
        "thinking_budget": budget_tokens,
    }
    task_id = engine.submit(ASK, 200, **bounds)
    whole = engine.answer(task_id)
    assert whole.started is not None
    texts = said(engine, task_id)
    thought = THOUGHTS[engine.process.config.model]
    assert texts == {"reasoning": thought[:budget_tokens], "content": TEXT}
    assert whole.reason == "stop"
    tasks = []
    for count in range(1, len(whole.ids)):
        before = said(engine, task_id, end=count)
        characters = {kind: len(text) for kind, text in before.items()}
        started = whole.started
        resume = Resume(
            ids=whole.ids[:count],
            characters=characters,
            revision=started.revision,
            prompt_hash=started.prompt_hash,
        )
        tasks.append((before, engine.submit(ASK, 200, resume=resume, **bounds)))
    for before, resumed in tasks:
        engine.answer(resumed)
        after = said(engine, resumed)
        assert {kind: before[kind] + after[kind] for kind in before} == texts


def test_a_budget_without_a_constraint(engine: EngineClient) -> None:
    """The thought ends within its budget, and the answer is free; 0 is no thought at all."""
    for budget_tokens in (2, 0):
        task_id = engine.submit(ASK, 60, thinking_budget=budget_tokens)
        assert engine.answer(task_id).finished
        texts = said(engine, task_id)
        assert texts["reasoning"] == THOUGHTS[engine.process.config.model][:budget_tokens]
        assert texts["content"]


def test_a_prompt_that_has_no_thought_open(models: dict[str, Path]) -> None:
    """With ``enable_thinking`` false the template closes the thought, and in a raw prompt nothing opens one."""
    config = EngineConfig(model="think", source=str(models["think"]))
    with EngineClient(config) as engine:
        tasks = [
            engine.submit(ASK, 200, chat_template_kwargs={"enable_thinking": False}),
            engine.submit("Say <think> once.", 200),
            engine.submit("Say it. <think>\n", 200),
        ]
        for task_id in tasks:
            engine.answer(task_id)
        texts = [said(engine, task_id) for task_id in tasks]
    thought = THOUGHTS["think"]
    open_from_the_start = {"reasoning": thought, "content": TEXT}
    assert texts == [*2 * [{"reasoning": "", "content": thought + TEXT}], open_from_the_start]


def test_a_resume_renders_nothing_again(tmp_path: Path) -> None:
    """A template that writes another text each time: the resumed prompt is the one that was computed, thought and all."""
    template = "{{ range(99999) | random }} {{ lipsum(n=1) }} {{ strftime_now('%H:%M:%S.%f') }}\n" + OPENING_TEMPLATE
    script = ["hm", "</think>", "Two"]
    folder = make_scripted_model(tmp_path / "clock", script, added=("<think>", "</think>"), template=template)
    messages = [*ASK, {"role": "assistant", "content": "Say <|im_end|>"}, *ASK]
    with EngineClient(EngineConfig(model="clock", source=str(folder))) as engine:
        whole = engine.ask(messages, 200)
        assert whole.started is not None
        told = Resume(
            ids=whole.ids[:1],
            characters={"reasoning": 1},
            revision=engine.ready.revision,
            prompt_hash=whole.started.prompt_hash,
            rendering=whole.started.rendering,
        )
        resumed = engine.submit(messages, 200, resume=told)
        again = engine.answer(resumed)
        assert again.started is not None
        assert (again.started.prompt_hash, again.started.rendering) == (told.prompt_hash, told.rendering)
        assert said(engine, resumed) == {"reasoning": "m", "content": "Two"}
        refused = engine.ask(messages, 200, resume=replace(told, rendering=""))
        assert refused.failed is not None
        assert refused.failed.code == "cannot_resume"


@pytest.fixture(scope="module")
def served(
    shared_app: Celery, shared_worker: StartWorker, models: dict[str, Path], tmp_path_factory: Any
) -> GenerateTask:
    """A worker that serves both models."""
    from tasks import generate

    assert generate.app is shared_app
    catalogue = write_catalogue(tmp_path_factory.mktemp("catalogue"), models)
    shared_worker("-c", "4", "-Q", "thinkers", env={"CELERY_MLX_CATALOGUE": str(catalogue)})
    return generate


def ask(served: GenerateTask, **values: Any) -> Any:
    """Send a request that has room for its thought."""
    return send_unchecked(served, "thinkers", **{"temperature": 0, "max_tokens": 200, **values})


@pytest.mark.parametrize("model", ["harmony", "think"])
def test_through_a_worker(served: GenerateTask, model: str) -> None:
    """Chunks, result, usage and the next link of a chain: the answer is the answer, and the thought has its own place."""
    reader = Reader(ask(served, model=model, messages=ASK), WAIT_S)
    reader.whole()
    answer = reader.result.get(timeout=WAIT_S)
    assert (answer["reasoning"], answer["text"], answer["finish_reason"]) == (THOUGHTS[model], TEXT, "stop")
    for kind, text in (("reasoning", THOUGHTS[model]), ("content", TEXT)):
        assert "".join(chunk.text for chunk in reader.chunks if chunk.kind == kind) == text
    usage = answer["usage"]
    assert usage["completion_tokens_details"]["reasoning_tokens"] >= len(THOUGHTS[model].encode())
    link = served.s(messages=[{"role": "user", "content": "{previous}?"}], model=model, temperature=0, max_tokens=1)
    first = served.s(messages=ASK, model=model, temperature=0, max_tokens=200).set(queue="thinkers")
    chained = (first | link.set(queue="thinkers")).apply_async().get(timeout=WAIT_S)
    alone = ask(served, model=model, messages=[{"role": "user", "content": f"{TEXT}?"}], max_tokens=1)
    assert chained["usage"]["prompt_tokens"] == alone.get(timeout=WAIT_S)["usage"]["prompt_tokens"]
