"""``.apply()`` and ``task_always_eager``: people's own tests, here and now, without Redis and without a worker."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from pydantic import BaseModel

from tasks.engine.fake import chat_prompt, fake_text
from tasks.errors import ContextExceeded, EngineFailed, InvalidRequest, ModelLoadFailed, UnknownModel
from tasks.messages.answer import usage_of
from tasks.messages.engine import Submit
from tasks.worker import eager
from tasks.worker.engines import process as engine_process
from tasks.worker.profile.installation import Installation
from tests.support import ROOT, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.generate import GenerateTask

MODEL = "fake:0"


@pytest.fixture(scope="module", autouse=True)
def engines() -> Iterator[None]:
    """Ends the engines that these tests start."""
    yield
    eager.ENGINES.close()


def process_of(name: str) -> engine_process.EngineProcess:
    found = eager.ENGINES.process(name)
    assert found is not None
    return found


@pytest.fixture
def generate() -> GenerateTask:
    from tasks import generate

    return generate


@pytest.fixture
def always_eager(generate: GenerateTask) -> Iterator[None]:
    """The setting that people's own tests have."""
    generate.app.conf.task_always_eager = True
    yield
    generate.app.conf.task_always_eager = False


def apply(generate: GenerateTask, *args: Any, **kwargs: Any) -> Any:
    return generate.apply(args, {"model": MODEL, **kwargs})


def test_an_answer(generate: GenerateTask) -> None:
    """``apply`` returns a finished result with the same dictionary as a worker's."""
    result = apply(generate, prompt="hello", max_tokens=5, seed=3)
    assert result.successful()
    answer = result.get()
    assert type(answer) is dict
    assert json.loads(json.dumps(answer)) == answer
    assert answer["text"] == fake_text("hello", 3, 5)
    assert answer["finish_reason"] == "length"
    assert answer["usage"] == usage_of(1, 0, 5, 0)
    assert answer["reasoning"] is None
    assert {*answer} == {
        "text",
        "reasoning",
        "tool_calls",
        "finish_reason",
        "usage",
        "timing",
        "logprobs",
        "model",
        "worker",
        "attempt",
    }


def test_it_streams(generate: GenerateTask) -> None:
    """The result has the streams of a real one: the whole answer, with its reason to end."""
    result = apply(generate, messages=[{"role": "user", "content": "hello"}], max_tokens=5)

    async def read() -> list[Any]:
        return [chunk async for chunk in result.astream(timeout=1)]

    for chunks in (list(result.stream(idle_timeout=1)), asyncio.run(read())):
        text = fake_text(chat_prompt([{"role": "user", "content": "hello"}]), None, 5)
        assert "".join(chunk.text for chunk in chunks) == text
        assert chunks[-1].finish_reason == "length"
        assert chunks[-1].usage["completion_tokens"] == 5


def test_it_streams_its_reasoning_first(generate: GenerateTask) -> None:
    """What the model thinks is a chunk of its own, and no part of the text."""
    result = apply(generate, prompt="!think@3 hello", max_tokens=5)
    whole = fake_text("!think@3 hello", None, 5)
    answer = result.get()
    assert answer["reasoning"] + answer["text"] == whole
    assert answer["usage"] == usage_of(2, 0, 5, 3)
    assert [(chunk.kind, chunk.text) for chunk in result.stream()] == [
        ("reasoning", fake_text("!think@3 hello", None, 3)),
        ("content", answer["text"]),
    ]


@pytest.mark.usefixtures("always_eager")
def test_what_else_a_result_has(generate: GenerateTask) -> None:
    """Code under test may await a result, and ask how far it is, as it does beside a fleet."""

    async def ask() -> Any:
        result = await generate.adelay(prompt="hello", model=MODEL, max_tokens=5)
        return result, await result

    result, answer = asyncio.run(ask())
    assert answer == result.get()
    assert [chunk.text for chunk in result.stream(5.0)] == [answer["text"]]
    assert (result.status, result.position()) == ("SUCCESS", None)
    status = result.status()
    assert (status.state, status.tokens, status.finish_reason) == ("ended", 5, "length")
    failed = apply(generate, prompt="hello", model="fake:0:load_error=gone").status()
    assert (failed.state, failed.error_code) == ("ended", "model_load_failed")


@pytest.mark.usefixtures("always_eager")
def test_always_eager(generate: GenerateTask) -> None:
    """With ``task_always_eager`` code under test calls ``delay`` as ever."""
    result = generate.delay(prompt="hello", model=MODEL, max_tokens=5)
    assert result.get()["text"] == fake_text("hello", None, 5)
    assert "".join(chunk.text for chunk in result.stream()) == result.get()["text"]


@pytest.mark.usefixtures("always_eager")
def test_a_chain(generate: GenerateTask) -> None:
    """A chain of eager requests puts the one's answer into the other's prompt."""
    first = generate.s(prompt="hello", model=MODEL, max_tokens=3)
    second = generate.s(prompt="Say: {previous}", model=MODEL, max_tokens=3)
    answer = (first | second).delay().get()
    assert answer["text"] == fake_text("Say: " + fake_text("hello", None, 3), None, 3)


def test_parameters_reach_the_engine(generate: GenerateTask) -> None:
    """Stop strings and log-probabilities work as on a worker."""
    whole = fake_text("hello", None, 20)
    stop = whole.split()[4]
    answer = apply(generate, prompt="hello", max_tokens=20, stop=stop, logprobs=True, top_logprobs=2).get()
    assert answer["finish_reason"] == "stop"
    assert answer["text"] == whole.partition(stop)[0]
    assert len(answer["logprobs"][0]["top_logprobs"]) == 2


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"prompt": ""}, InvalidRequest),
        ({"prompt": "x", "top_p": 2}, InvalidRequest),
        ({"prompt": "x", "model": "nobody/knows-7b"}, UnknownModel),
        ({"prompt": "x", "max_tokens": 100_000}, ContextExceeded),
        ({"prompt": "x", "model": "fake:10@7B"}, UnknownModel),
    ],
)
def test_errors_are_the_same(generate: GenerateTask, values: dict[str, Any], error: type[Exception]) -> None:
    """What a worker would put onto the stream is the result's, and the stream's, error."""
    result = apply(generate, **values)
    assert result.failed()
    with pytest.raises(error):
        result.get()
    with pytest.raises(error):
        list(result.stream())


def test_a_dead_engine_is_replaced(generate: GenerateTask) -> None:
    """An engine that dies fails its request with its last words, and the next request gets a new one."""
    apply(generate, prompt="hello", max_tokens=1).get()
    with pytest.raises(EngineFailed, match="exited with code 70"):
        apply(generate, prompt="!crash@2", max_tokens=5).get()
    assert apply(generate, prompt="hello", max_tokens=1).successful()


def test_an_engine_that_dies_between_requests_is_an_error(generate: GenerateTask) -> None:
    """A process that is gone when the next request comes fails that one, not all after it."""
    apply(generate, prompt="hello", max_tokens=1).get()
    process = process_of(MODEL)
    process.kill()
    wait_until(lambda: process.exitcode is not None)
    with pytest.raises(EngineFailed, match="SIGKILL"):
        apply(generate, prompt="hello", max_tokens=1).get()
    assert apply(generate, prompt="hello", max_tokens=1).successful()


def test_an_interrupted_request_answers_no_other(generate: GenerateTask) -> None:
    """Ctrl-C in the middle of an answer, as in a notebook: the next request gets its own tokens, and as many as it asked for."""
    slow = "fake:20"
    apply(generate, prompt="warm", model=slow, max_tokens=1).get()
    process = process_of(slow)
    sent = process.send

    def interrupt(message: Any) -> None:
        sent(message)
        process.send = sent  # type: ignore[method-assign]
        threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()

    process.send = interrupt  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        apply(generate, prompt="cut off", model=slow, max_tokens=8000)
    assert process.exitcode is not None
    answer = apply(generate, prompt="next", model=slow, max_tokens=3).get()
    assert answer["text"] == fake_text("next", None, 3)


def test_what_an_engine_says_of_another_request_is_not_taken(generate: GenerateTask) -> None:
    """Tokens of a request that nobody waits for any more, before one's own."""
    apply(generate, prompt="warm", max_tokens=1).get()
    process = process_of(MODEL)
    process.send(Submit(task_id="somebody else's", messages=None, prompt="other", max_tokens=5))
    answer = apply(generate, prompt="mine", max_tokens=7).get()
    assert answer["text"] == fake_text("mine", None, 7)


def test_a_model_that_cannot_be_loaded(
    generate: GenerateTask, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A folder without a model fails its request, and leaves no process."""
    folder = tmp_path_factory.mktemp("empty")
    catalogue = folder / "catalogue.toml"
    catalogue.write_text(f'allow_paths = ["{folder}"]\n')
    settings = replace(generate.settings, catalogue=str(catalogue))
    # What was sent before has looked the settings up, once for all.
    monkeypatch.setitem(vars(generate.fleet), "settings", settings)
    with pytest.raises(ModelLoadFailed, match=str(folder)):
        apply(generate, prompt="hello", model=str(folder)).get()
    assert eager.ENGINES.process(str(folder)) is None


@pytest.mark.parametrize("change", ["library", "records", "own", "python"])
def test_code_that_is_replaced_is_no_fault_of_the_model(
    generate: GenerateTask, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """While pip replaces a package a load fails in ways of its own; afterwards a process with the old code cannot go on."""
    model = "fake:0:load_error=unknown type" if change == "library" else "fake:0:load_s=0"
    said = "start the process again"
    if change == "library":
        monkeypatch.setattr(Installation, "fault", lambda _: "mlx-lm lacks mlx_lm/models/llama.py")
        said = "mlx-lm lacks mlx_lm/models/llama.py; start the process again"
    elif change == "records":
        monkeypatch.setattr(engine_process, "protocol", lambda: "another version's")
    elif change == "own":
        monkeypatch.setattr(engine_process, "PACKAGE", "tasks.removed")
    else:
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(EngineFailed, match=said):
        apply(generate, prompt="hello", model=model, max_tokens=1).get()
    assert eager.ENGINES.process(model) is None


def test_a_machine_without_room_for_a_process(generate: GenerateTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is an error that may pass, and the next request tries again."""

    def refused(_: Any) -> Any:
        raise BlockingIOError(errno.EAGAIN, "no process left")

    model = "fake:0:load_s=0"
    with monkeypatch.context() as patch:
        patch.setattr(engine_process.EngineProcess, "start", refused)
        with pytest.raises(EngineFailed, match=r"no process could be started for it: .*no process left"):
            apply(generate, prompt="hello", model=model, max_tokens=1).get()
    assert apply(generate, prompt="hello", model=model, max_tokens=1).successful()


def test_no_redis_is_needed() -> None:
    """In a process that cannot reach Redis an eager request works, and its engine ends with the process."""
    program = f"""
from tasks import app, generate
from tasks.worker import eager
app.conf.task_always_eager = True
print(generate.delay(prompt="hello", model="{MODEL}", max_tokens=5).get()["finish_reason"], eager.ENGINES.process("{MODEL}").pid)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "REDIS_URL": "redis://127.0.0.1:1/0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    reason, pid = done.stdout.split()
    assert reason == "length"
    wait_until(lambda: not psutil.pid_exists(int(pid)))


class Person(BaseModel):
    name: str


def test_a_response_format_is_that_of_a_real_request(generate: GenerateTask) -> None:
    """A pydantic model goes to the engine as its schema, and the result knows the model; a fake engine keeps to none."""
    result = apply(generate, prompt="hello", max_tokens=5, response_format=Person)
    assert result.response_model is Person
    with pytest.raises(InvalidRequest, match="the fake engine keeps to no constraint"):
        result.parsed()
