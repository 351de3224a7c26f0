"""Calls of functions: real models of three families that call one, in the engine, through a resume, and through a worker."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.parts.catalogue import write_catalogue
from benchmarks.parts.scripted_model import make_scripted_model
from benchmarks.parts.tiny_model import CHAT_TEMPLATE, SPECIAL_TOKENS
from tasks.client.request.parameters import parse
from tasks.messages.constraint import Constraint
from tasks.messages.engine import EngineConfig, Resume, Sampling, Tokens
from tasks.messages.tools import Calls, call_id, delta
from tests.engine_client import EngineClient
from tests.support import Reader, send_unchecked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from celery import Celery

    from tasks.generate import GenerateTask
    from tests.conftest import StartWorker

pytestmark = pytest.mark.xdist_group("tools")
WAIT_S = 60.0
ASK: list[dict[str, Any]] = [{"role": "user", "content": "1+2?"}]
DIP = {
    "type": "function",
    "function": {
        "name": "dip",
        "description": "Ends with <|im_end|>",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}, "why": {"type": "string"}}},
    },
}
TOOLS = parse({"messages": ASK, "tools": [DIP]}).called()
#: A character of two tokens, and what looks like an end, in a text.
ARGUMENTS = '{"a":12,"why":"é</o>}"}'
#: What each model says before it calls. No four tokens of a script may come twice, nor the prompt's last one at all.
TEXTS = {"json": "Hm", "mistral": "Hm", "harmony": ""}
#: Short prompts alone: in long ones these models lose their script.
NAMES = "{% for tool in tools or [] %}{{ tool.function.name }}{% endfor %}"
TOOLED_TEMPLATE = NAMES + CHAT_TEMPLATE.replace(
    "{{ message['content'] }}",
    "{{ message['content'] or '' }}{% for call in message.tool_calls or [] %}<tool_call>"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}</tool_call>{% endfor %}',
)
HARMONY = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>", "<|call|>")
HARMONY_TEMPLATE = (
    NAMES + "{% for m in messages %}<|start|>{{ m['role'] }}<|message|>{{ m['content'] }}"
    "<|end|>{% endfor %}<|start|>assistant"
)
FAMILIES = ("json", "mistral", "harmony")


def make_models(folder: Path) -> dict[str, Path]:
    """A model of each family, and one whose template knows no tools."""
    wrapped = ('{"name" : "dip","arguments":', ARGUMENTS, "}")
    template = TOOLED_TEMPLATE.replace("<tool_call>", "[TOOL_CALLS]").replace("</tool_call>", "")
    return {
        "json": make_scripted_model(
            folder / "json",
            ["Hm ", "<tool_call>", *wrapped, "</tool_call>"],
            added=("<tool_call>", "</tool_call>"),
            template=TOOLED_TEMPLATE,
        ),
        "mistral": make_scripted_model(
            folder / "mistral",
            ["Hm", "[TOOL_CALLS]", "dip", "[ARGS]", ARGUMENTS],
            special=(*SPECIAL_TOKENS, "[TOOL_CALLS]", "[ARGS]"),
            template=template,
        ),
        "harmony": make_scripted_model(
            folder / "harmony",
            ["<|channel|>", "commentary", " ", "to", "=", "functions", ".dip", "<|message|>", ARGUMENTS],
            words=("to", "functions", "commentary"),
            special=(*SPECIAL_TOKENS, *HARMONY),
            end="<|call|>",
            template=HARMONY_TEMPLATE,
        ),
        "plain": make_scripted_model(folder / "plain", ["Hm"]),
    }


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module", params=FAMILIES)
def engine(request: pytest.FixtureRequest, models: dict[str, Path]) -> Iterator[EngineClient]:
    """An engine of each family."""
    with EngineClient(EngineConfig(model=request.param, source=str(models[request.param]))) as client:
        assert client.ready
        yield client


def events_of(engine: EngineClient, task_id: str, end: int | None = None) -> list[Tokens]:
    """The text of a request, up to the token ``end``."""
    events = [event for output in engine.outputs for event in output.events if isinstance(event, Tokens)]
    return [event for event in events if event.task_id == task_id and (end is None or event.index < end)]


def said(events: list[Tokens]) -> tuple[str, list[dict[str, Any]]]:
    """The text in these events, and the calls as name and arguments."""
    calls = Calls()
    for event in events:
        if event.call is not None:
            calls.add(delta(event.call, event.text, "id" if event.name else None, event.name or None))
    text = "".join(event.text for event in events if event.kind == "content")
    return text, [call["function"] for call in calls.as_message()]


def whole_of(engine: EngineClient) -> tuple[str, list[dict[str, Any]]]:
    """All that this engine's model says."""
    return TEXTS[engine.process.config.model], [{"name": "dip", "arguments": ARGUMENTS}]


def test_the_call_comes_apart(engine: EngineClient) -> None:
    """Name and arguments are a call, the words before it are text, and no marker is seen."""
    task_id = engine.submit(ASK, 200, tools=TOOLS)
    assert engine.answer(task_id).reason == "tool_calls"
    assert said(events_of(engine, task_id)) == whole_of(engine)


def test_a_resume_at_every_token(engine: EngineClient) -> None:
    """In a marker, in a name, in mid-argument and in mid-character: what was said and what follows is the whole call."""
    task_id = engine.submit(ASK, 200, tools=TOOLS)
    whole = engine.answer(task_id)
    assert whole.started is not None
    tasks = []
    for count in range(1, len(whole.ids)):
        before = events_of(engine, task_id, end=count)
        resume = Resume(
            ids=whole.ids[:count],
            characters={
                kind: sum(len(event.text) for event in before if event.kind == kind)
                for kind in ("content", "tool_call")
            },
            revision=whole.started.revision,
            prompt_hash=whole.started.prompt_hash,
            rendering=whole.started.rendering,
            calls=sum(bool(event.name) for event in before),
        )
        tasks.append((before, engine.submit(ASK, 200, tools=TOOLS, resume=resume)))
    for before, resumed in tasks:
        assert engine.answer(resumed).reason == "tool_calls"
        assert said([*before, *events_of(engine, resumed)]) == whole_of(engine)


def test_every_length(engine: EngineClient) -> None:
    """Wherever ``max_tokens`` cuts, the arguments begin the whole ones and the reason is ``length``; no marker is in the text.

    Nothing can follow a call of Harmony's, so its last character ends the answer.
    """
    whole = engine.ask(ASK, 200, tools=TOOLS)
    tasks = [engine.submit(ASK, count, tools=TOOLS) for count in range(1, len(whole.ids) + 1)]
    for task_id in tasks:
        answer = engine.answer(task_id)
        text, calls = said(events_of(engine, task_id))
        assert [call["name"] for call in calls] in ([], ["dip"])
        assert all(ARGUMENTS.startswith(call["arguments"].rstrip("\ufffd")) for call in calls)
        whole_call = engine.process.config.model == "harmony" and [call["arguments"] for call in calls] == [ARGUMENTS]
        assert answer.reason == ("tool_calls" if whole_call else "length")
        assert not any(marker in text for marker in ("<tool_call>", "[TOOL_CALLS]", "functions."))


def test_calls_or_data(engine: EngineClient) -> None:
    """Beside a response_format a model says one of the two, and no other text: each is whole and by its schema."""
    schema = {
        "type": "object",
        "properties": {"b": {"type": "boolean"}},
        "required": ["b"],
        "additionalProperties": False,
    }
    constraint = Constraint(kind="json_schema", value=json.dumps(schema))
    task_id = engine.submit(ASK, 200, tools=TOOLS, constraint=constraint)
    reason = engine.answer(task_id).reason
    text, calls = said(events_of(engine, task_id))
    if reason == "stop":
        assert (isinstance(json.loads(text)["b"], bool), calls) == (True, [])
    else:
        assert (reason, text) == ("tool_calls", "")
        assert {call["name"] for call in calls} == {"dip"}
        assert all(json.loads(call["arguments"]).keys() <= {"a", "why"} for call in calls)
    if engine.process.config.model == "harmony":  # whose script has no text before the call
        assert calls == whole_of(engine)[1]


@pytest.fixture(scope="module")
def served(
    shared_app: Celery, shared_worker: StartWorker, models: dict[str, Path], tmp_path_factory: Any
) -> GenerateTask:
    """A worker that serves all models."""
    from tasks import generate

    assert generate.app is shared_app
    catalogue = write_catalogue(tmp_path_factory.mktemp("catalogue"), models)
    shared_worker("-c", "4", "-Q", "callers", env={"CELERY_MLX_CATALOGUE": str(catalogue)})
    return generate


def ask(served: GenerateTask, **values: Any) -> Any:
    """Send a request with the function."""
    values = {"temperature": 0, "max_tokens": 200, "messages": ASK, "tools": [DIP], **values}
    return send_unchecked(served, "callers", **values)


@pytest.mark.parametrize("model", FAMILIES)
def test_through_a_worker(served: GenerateTask, model: str) -> None:
    """Chunks and result say the same call, in OpenAI's shapes; the next turn takes it as it came."""
    reader = Reader(ask(served, model=model), WAIT_S)
    reader.whole()
    answer = reader.result.get(timeout=WAIT_S)
    called = {
        "id": call_id(reader.result.id, 0),
        "type": "function",
        "function": {"name": "dip", "arguments": ARGUMENTS},
    }
    assert answer["tool_calls"] == [called]
    assert (answer["text"], answer["finish_reason"]) == (TEXTS[model], "tool_calls")
    assert "warnings" not in answer
    parts = [chunk.tool_call for chunk in reader.chunks if chunk.kind == "tool_call"]
    assert [part["function"].get("name") for part in parts if part] == ["dip", *[None] * (len(parts) - 1)]
    calls = Calls()
    for part in parts:
        assert part is not None
        calls.add(part)
    assert calls.as_message() == [called]
    history = [
        *ASK,
        {"role": "assistant", "content": answer["text"], "tool_calls": answer["tool_calls"]},
        {"role": "tool", "tool_call_id": called["id"], "content": "3"},
    ]
    if model == "json":
        again = ask(served, model=model, messages=history).get(timeout=WAIT_S)
        assert again["usage"]["prompt_tokens"] > answer["usage"]["prompt_tokens"]


def test_after_the_journal_has_expired(served: GenerateTask) -> None:
    """The stored result has the call, and a late reader gets it as one chunk of its own."""
    from tasks.server import keys
    from tasks.server.connection import connect

    result = ask(served, model="json")
    answer = result.get(timeout=WAIT_S)
    connect(served.app).delete(keys.stream(result.id))
    chunks = list(result.stream(timeout=WAIT_S))
    assert [chunk.kind for chunk in chunks] == ["tool_call", "content"]
    assert chunks[0].tool_call == {"index": 0, **answer["tool_calls"][0]}
    assert chunks[1].finish_reason == "tool_calls"


def test_no_tools_and_no_calls(served: GenerateTask) -> None:
    """Without tools, and with ``tool_choice`` ``none``, what the model writes is text."""
    changes: list[dict[str, Any]] = [{"tools": []}, {"tool_choice": "none"}]
    for more in changes:
        answer = ask(served, model="json", **more).get(timeout=WAIT_S)
        assert answer["tool_calls"] is None
        assert '"dip"' in answer["text"]
        assert answer["finish_reason"] == "stop"


def test_a_template_without_tools(served: GenerateTask) -> None:
    """A model that knows no tools is one clear error."""
    from tasks.errors import InvalidRequest

    with pytest.raises(InvalidRequest, match="tools: the model's chat template leaves them out: take a model that was"):
        ask(served, model="plain").get(timeout=WAIT_S)


#: Arguments that end soon, whatever a small model would say.
BOOK: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "book",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 8}, "nights": {"type": "integer", "maximum": 9}},
            "required": ["city", "nights"],
        },
    },
}
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"unit": {"enum": ["C", "F"]}}}},
}


@pytest.fixture(scope="module")
def smol(bundled_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model with a chat template that has tools."""
    folder = tmp_path_factory.mktemp("smol")
    for path in bundled_model.iterdir():
        if path.name not in ("tokenizer_config.json", "chat_template.jinja"):
            (folder / path.name).symlink_to(path)
    described = json.loads((bundled_model / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(described | {"chat_template": TOOLED_TEMPLATE}))
    return folder


def test_a_model_that_never_learned_it(smol: Path) -> None:
    """A grammar has any model call what it has to, with arguments that are valid, and its deltas are streamed."""
    from jsonschema import validate

    named = {"type": "function", "function": {"name": "weather"}}
    asked: list[dict[str, Any]] = [
        {"tool_choice": {"type": "function", "function": {"name": "book"}}, "parallel_tool_calls": False},
        {"tool_choice": named, "parallel_tool_calls": False},
        {"tool_choice": "required", "parallel_tool_calls": False},
    ]
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in (BOOK, WEATHER)}
    with EngineClient(EngineConfig(model="smol", source=str(smol))) as engine:
        tools = [parse({"messages": ASK, "tools": [BOOK, WEATHER], **more}).called() for more in asked]
        hot = Sampling(temperature=1.5, seed=3)
        tasks = [engine.submit(ASK, 100, tools=choice, sampling=hot) for choice in tools]
        engine.wait(lambda: all(engine.answers[task_id].done for task_id in tasks), 240)
        calls = [said(events_of(engine, task_id)) for task_id in tasks]
        parts = [sum(event.call is not None for event in events_of(engine, task_id)) for task_id in tasks]
    assert [text for text, _ in calls] == ["", "", ""]
    assert [call[0]["name"] for _, call in calls[:2]] == ["book", "weather"]
    for _, (call,) in calls:
        validate(json.loads(call["arguments"]), schemas[call["name"]])
    assert parts[0] > 3
