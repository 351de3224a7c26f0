"""The ten families that people download most: each one's prompts, answers, stops and resumes, by its own architecture, tokenizer,
template and markers."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tasks.engine.generation.memory import MemoryBound
from tasks.engine.model.mlx import load_model
from tasks.errors import InvalidRequest
from tasks.messages.engine import EngineConfig, Resume, Sampling, Submit, Tokens
from tests.engine_client import GREEDY
from tests.families.family import CONVERSATIONS, families
from tests.unit.engine.generation.test_engine_loop import Loop

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.engine.model.mlx import MlxRunner
    from tasks.messages.answer import Kind
    from tests.engine_client import Answer
    from tests.families.family import Family

pytestmark = pytest.mark.xdist_group("mlx")

FAMILIES = families()
ENOUGH_TOKENS = 60


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def runner(family: Family, tmp_path_factory: pytest.TempPathFactory) -> MlxRunner:
    """Its model, loaded."""
    folder = family.write(tmp_path_factory.mktemp("families") / family.name)
    return load_model(EngineConfig(model=family.name, source=str(folder)), lambda *_: None, "")


def submit(messages: list[dict[str, Any]], **fields: Any) -> Submit:
    return Submit(
        **{"task_id": "t", "messages": messages, "prompt": None, "max_tokens": 1, "sampling": GREEDY, **fields}
    )


def asked(runner: MlxRunner, requests: dict[str, dict[str, Any]]) -> tuple[dict[str, Answer], dict[str, list[Tokens]]]:
    """What comes back for these requests, all at the same time: answers, and the events of each."""
    loop = Loop(runner=runner, max_batch=len(requests))
    for name, fields in requests.items():
        loop.submit(name, ENOUGH_TOKENS, **{"messages": CONVERSATIONS["chat"], "prompt": None, **fields})
    loop.finish()
    events: dict[str, list[Tokens]] = {name: [] for name in requests}
    for output in loop.outputs:
        for event in output.events:
            if isinstance(event, Tokens):
                events[event.task_id].append(event)
    return loop.answers, events


def said(events: list[Tokens]) -> dict[Kind, str]:
    texts: dict[Kind, str] = {"reasoning": "", "content": ""}
    for event in events:
        texts[event.kind] += event.text
    return texts


@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_a_conversation_becomes_the_tokens_that_its_authors_meant(
    family: Family, runner: MlxRunner, conversation: str
) -> None:
    """Spaces, markers and one token for the beginning; instructions are where the family has a place for them."""
    assert runner.encode(submit(CONVERSATIONS[conversation])).ids == family.prompt_ids(conversation)


@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_a_rendered_conversation_may_be_sent_as_a_prompt(family: Family, runner: MlxRunner, conversation: str) -> None:
    """Where it begins with a first token, it gets no second one; the tokenizer may put one before what has none."""
    rendered = family.prompt_ids(conversation)
    asked = submit([], prompt=family.described["prompts"][conversation])
    found = runner.encode(replace(asked, messages=None)).ids
    added = found[: -len(rendered)]
    assert found[len(added) :] == rendered
    assert added in ([], found[:1])
    assert added != rendered[:1]


def test_answers_come_apart_and_end(family: Family, runner: MlxRunner) -> None:
    """Rows of all conversations beside each other: what is thought, what is said, and a stop string in the midst of it."""
    requests = {name: {"messages": messages} for name, messages in CONVERSATIONS.items()}
    stop = family.content[-5:-1]
    answers, events = asked(runner, {**requests, "stopped": {"stop": (stop,)}})
    whole = {"reasoning": family.reasoning, "content": family.content}
    for name in requests:
        assert said(events[name]) == whole
        assert (answers[name].ids, answers[name].reason) == (list(family.script.ids[:-1]), "stop")
    assert said(events["stopped"]) == {**whole, "content": family.content.partition(stop)[0]}
    assert answers["stopped"].reason == "stop"


def test_a_resume_behind_a_token_that_said_nothing(family: Family, runner: MlxRunner) -> None:
    """In mid-character, in a marker, in a header: text of each kind and log-probabilities are those of the whole answer."""
    sampling = Sampling(temperature=0.0, logprobs=True)
    answers, events = asked(runner, {"whole": {"sampling": sampling}})
    whole, parts = answers["whole"], events["whole"]
    assert whole.started is not None
    silent = [event.index + 1 for event in parts if event.ids and not event.text]
    assert len(silent) >= 4
    before = {count: [event for event in parts if event.index < count] for count in silent}
    requests = {
        f"{count}": {
            "sampling": sampling,
            "resume": Resume(
                ids=whole.ids[:count],
                characters={kind: len(text) for kind, text in said(known).items()},
                revision=whole.started.revision,
                prompt_hash=whole.started.prompt_hash,
                rendering=whole.started.rendering,
            ),
        }
        for count, known in before.items()
    }
    answers, events = asked(runner, requests)
    for count, known in before.items():
        assert said([*known, *events[f"{count}"]]) == said(parts)
        logprobs = [logprob.logprob for logprob in answers[f"{count}"].logprobs]
        assert logprobs == pytest.approx([score.logprob for score in whole.logprobs[count:]], abs=1e-4)


@pytest.mark.parametrize("name", ["gemma2", "gemma3", "mistral"])
def test_roles_that_have_to_alternate(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The template's own words, which two messages it is about, and what to do; instructions count for neither role."""
    family = FAMILIES[name]
    folder = family.write(tmp_path_factory.mktemp("alternating"))
    runner = load_model(EngineConfig(model=name, source=str(folder)), lambda *_: None, "")
    twice = [*CONVERSATIONS["system"][:2], {"role": "user", "content": "Well?"}]
    with pytest.raises(InvalidRequest, match=r"must alternate.*messages\[1\] and messages\[2\] are both from 'user'"):
        runner.encode(submit(twice))


def test_a_long_request_is_admitted_where_its_real_bytes_fit(tmp_path: Path) -> None:
    """32,768 tokens of Gemma 3: half of its layers keep a window, and a budget without room for all of theirs is enough."""
    folder = FAMILIES["gemma3"].write(tmp_path / "gemma3")
    runner = load_model(EngineConfig(model="gemma3", source=str(folder)), lambda *_: None, "")
    kv, prompt = runner.facts.kv, len(runner.encode(submit(CONVERSATIONS["chat"])).ids)
    assert kv.row_bytes(32768) < 0.51 * 32768 * (
        kv.bytes_per_token + sum(window.bytes_per_token for window in kv.windows)
    )
    bound = MemoryBound(0, runner.facts.weights_bytes, kv, runner.facts.prefill_step_tokens)
    enough = bound.weights_bytes + bound.margin_bytes + kv.row_bytes(32768)
    for total_bytes, admitted in ((enough, True), (enough - 1, False)):
        loop = Loop(runner=runner, total_bytes=total_bytes)
        loop.submit("long", 32768 - prompt, messages=CONVERSATIONS["chat"], prompt=None)
        loop.turn(3)
        answer = loop.answers["long"]
        assert (answer.started is not None) is admitted
        assert admitted or (answer.failed is not None and answer.failed.code == "out_of_memory")
        loop.abort("long")
        loop.turn()


def test_a_token_that_the_model_has_no_vector_for(tmp_path: Path) -> None:
    """A tokenizer that has more tokens than the model: such a token is an error that names it, and not noise."""
    folder = FAMILIES["qwen3"].write(tmp_path / "larger")
    path = folder / "tokenizer.json"
    described = json.loads(path.read_text())
    last = described["added_tokens"][-1]
    described["added_tokens"].append({**last, "id": last["id"] + 1, "content": "<extra>"})
    path.write_text(json.dumps(described))
    runner = load_model(EngineConfig(model="larger", source=str(folder)), lambda *_: None, "")
    assert runner.encode(submit(CONVERSATIONS["chat"])).ids == FAMILIES["qwen3"].prompt_ids("chat")
    with pytest.raises(
        InvalidRequest, match=r"messages: the tokenizer has the token '<extra>' .*the model knows 285 tokens"
    ):
        runner.encode(submit([{"role": "user", "content": "Say <extra>"}], allow_control_tokens=True))


def test_a_class_that_cuts_texts_otherwise_gives_way_to_the_file(tmp_path: Path) -> None:
    """Two line ends are one token of Llama 3, which GPT-2's rules take apart before a word."""
    family = FAMILIES["llama"]
    folder = family.write(tmp_path / "gpt2")
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tokenizer_class": "GPT2TokenizerFast"}))
    runner = load_model(EngineConfig(model="gpt2", source=str(folder)), lambda *_: None, "")
    assert runner.encode(submit(CONVERSATIONS["chat"])).ids == family.prompt_ids("chat")
