"""Bad input: one clear error each, on the producer's side, and on the stream where a producer did not look."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.parts.tiny_model import make_tiny_model
from tasks.engine.fake import fake_text
from tasks.errors import ContextExceeded, GenerationError, InvalidRequest, ModelLoadFailed, UnknownModel

if TYPE_CHECKING:
    from pathlib import Path

    from celery import Celery

    from tasks.generate import GenerateTask
    from tests.conftest import StartWorker
    from tests.support import Worker

pytestmark = pytest.mark.xdist_group("bad-input")
WAIT_S = 60.0
QUEUE = "tier-under-3B"
MODEL = "fake:0"
USER = [{"role": "user", "content": "hello"}]


def nested(levels: int) -> Any:
    """A value of so many levels, twice over."""
    value: Any = 1
    for _ in range(levels):
        value = {"a": [value]}
    return value


#: What is wrong, and how its message begins. Each has a good prompt, unless it says something of the prompt itself.
BAD: list[tuple[dict[str, Any], str]] = [
    ({"prompt": None}, "neither messages nor prompt is set"),
    ({"messages": USER}, "both messages and prompt are set"),
    ({"prompt": ""}, "prompt='' is empty"),
    ({"prompt": None, "messages": []}, "messages=[…] has no text"),
    ({"prompt": None, "messages": [{"role": "boss", "content": "x"}]}, "messages[0]['role']='boss'"),
    ({"prompt": None, "messages": "hello"}, "messages=<str>: input should be a valid list"),
    ({"prompt": 5}, "prompt=5"),
    ({"temperature": -1}, "temperature=-1"),
    ({"top_p": 0}, "top_p=0"),
    ({"top_p": 1.5}, "top_p=1.5"),
    ({"top_k": -1}, "top_k=-1"),
    ({"min_p": 1.5}, "min_p=1.5"),
    ({"presence_penalty": 3}, "presence_penalty=3"),
    ({"frequency_penalty": -3}, "frequency_penalty=-3"),
    ({"max_tokens": 0}, "max_tokens=0"),
    ({"stop": ["x"] * 17}, "stop=['x'"),
    ({"stop": ["x" * 257]}, "stop=['xxx"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs=21"),
    ({"tools": [{"type": "function"}]}, "tools[0]['function']: field required"),
    ({"response_format": {}}, "response_format['type']"),
    ({"response_format": {"type": "json_schema"}}, "response_format={'type': 'json_schema'}: has no json_schema"),
    ({"response_format": {"type": "json_object"}, "regex": "a"}, "response_format and regex are set"),
    ({"response_format": "json"}, "response_format='json'"),
    ({"choice": []}, "choice"),
    ({"choice": "yes"}, "choice"),
    ({"grammar": "root ::= [a-z]"}, "grammar='root ::= [a-z]'"),
    ({"metadata": nested(90)}, "metadata: nested more than 64 levels deep"),
    ({"stop": nested(33)}, "stop: nested more than 64 levels deep"),
    ({"zzz": nested(90)}, "zzz: nested more than 64 levels deep"),
    (
        {"prompt": None, "messages": [{"role": "user", "content": nested(90)}]},
        "messages: nested more than 64 levels deep",
    ),
    ({"metadata": {"a": float("nan")}}, "metadata={'a': nan}: it has a number that is none"),
    ({"seed": 10**2000}, "seed: an integer of 6644 bits"),
    ({"temprature": 1}, "temprature=1: unknown field; did you mean temperature?"),
]
IDS = [json.dumps(values)[:40] for values, _ in BAD]


@pytest.fixture(scope="module")
def generate(shared_app: Celery) -> GenerateTask:
    from tasks import generate

    return generate


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of models: one is empty, one has weights that are no weights, one has no chat template."""
    root = tmp_path_factory.mktemp("models-135m")
    (root / "empty-135m").mkdir()
    corrupt = make_tiny_model(root / "corrupt-135m")
    (corrupt / "model.safetensors").write_bytes(b"\xff" * 1000)
    make_tiny_model(root / "raw-135m", chat_template=False)
    return root


@pytest.fixture(scope="module", autouse=True)
def node(shared_worker: StartWorker, folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Worker:
    """A worker that may load from those folders."""
    catalogue = tmp_path_factory.mktemp("catalogue") / "models.toml"
    catalogue.write_text(f"allow_paths = [{json.dumps(str(folders))}]\n")
    return shared_worker(
        "-c", "4", "-Q", QUEUE, env={"CELERY_MLX_MODELS": MODEL, "CELERY_MLX_CATALOGUE": str(catalogue)}
    )


@pytest.fixture(autouse=True)
def others_are_served(node: Worker, generate: GenerateTask) -> Any:
    """A good request that came before the bad one, and one after it, are answered; nobody sees a traceback."""
    before = generate.delay(prompt="before", model="fake:5", max_tokens=20)
    yield
    after = generate.delay(prompt="after", model="fake:5", max_tokens=1)
    assert before.get(timeout=WAIT_S)["text"] == fake_text("before", None, 20)
    assert after.get(timeout=WAIT_S)["text"] == fake_text("after", None, 1)
    assert node.process.poll() is None
    assert "Traceback" not in node.log()


def refused(generate: GenerateTask, expected: type[GenerationError], **values: Any) -> str:
    """Send a request raw, as another codebase would; what its stream and its result say, which is the same."""
    sent = generate.app.send_task("tasks.generate", kwargs={"model": MODEL, **values}, queue=QUEUE)
    result = generate.AsyncResult(sent.id)
    with pytest.raises(expected) as on_stream:
        list(result.stream(timeout=WAIT_S))
    with pytest.raises(expected) as as_result:
        result.get(timeout=WAIT_S)
    assert type(on_stream.value) is type(as_result.value)
    assert str(on_stream.value) == str(as_result.value)
    assert "\n" not in str(on_stream.value)
    return str(on_stream.value)


@pytest.mark.parametrize(("values", "said"), BAD, ids=IDS)
def test_the_producer_is_told(generate: GenerateTask, values: dict[str, Any], said: str) -> None:
    """``delay`` itself raises, and nothing is sent."""
    with pytest.raises(InvalidRequest) as caught:
        generate.delay(**{"prompt": "hello", "model": MODEL, **values})
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(("values", "said"), BAD, ids=IDS)
def test_the_reader_is_told(generate: GenerateTask, values: dict[str, Any], said: str) -> None:
    """Sent raw, the same error is on the stream and is the result."""
    assert refused(generate, InvalidRequest, **{"prompt": "hello", **values}).startswith(said)


def test_longer_than_the_context(generate: GenerateTask) -> None:
    """A prompt that leaves no room in the model's context says how long each is, to a producer of ours too."""
    values: dict[str, Any] = {"prompt": "word " * 9000, "max_tokens": 10}
    message = refused(generate, ContextExceeded, **values)
    assert message == (
        "the prompt has 9001 tokens and max_tokens is 10: together more than the model's context of 8192 tokens"
    )
    with pytest.raises(ContextExceeded):
        generate.delay(model=MODEL, **values).get(timeout=WAIT_S)


def test_unknown_model(generate: GenerateTask) -> None:
    """A model that nobody allows is named, with what comes close and where to allow it."""
    with pytest.raises(UnknownModel) as caught:
        generate.delay(prompt="hello", model="smollm2-135")
    message = refused(generate, UnknownModel, prompt="hello", model="smollm2-135")
    assert message == str(caught.value)
    assert "model 'smollm2-135' is neither in the catalogue nor allowed" in message
    assert "did you mean smollm2-135m" in message
    assert "CELERY_MLX_CATALOGUE" in message


def test_a_folder_without_weights(generate: GenerateTask, folders: Path) -> None:
    """The folder is named."""
    folder = str(folders / "empty-135m")
    assert folder in refused(generate, ModelLoadFailed, prompt="hello", model=folder)


def test_corrupt_weights(generate: GenerateTask, folders: Path) -> None:
    """The file that cannot be read is named."""
    folder = folders / "corrupt-135m"
    assert str(folder / "model.safetensors") in refused(generate, ModelLoadFailed, prompt="hello", model=str(folder))


def test_messages_without_a_chat_template(generate: GenerateTask, folders: Path) -> None:
    """A model that has no template for conversations says to send a prompt, and answers one."""
    folder = str(folders / "raw-135m")
    message = refused(generate, InvalidRequest, messages=USER, model=folder)
    assert "chat template" in message
    assert "prompt" in message
    raw = generate.app.send_task(
        "tasks.generate", kwargs={"model": folder, "prompt": "hello", "max_tokens": 3}, queue=QUEUE
    )
    assert raw.get(timeout=WAIT_S)["usage"]["completion_tokens"] <= 3


def test_a_folder_outside(generate: GenerateTask, tmp_path: Path) -> None:
    """A path that lies in no allowed folder is refused, whether or not it exists."""
    message = refused(generate, UnknownModel, prompt="hello", model=str(tmp_path))
    assert "allow_paths" in message


def test_a_second_positional_argument(generate: GenerateTask) -> None:
    """Arguments that nobody would look at are refused by the producer, and are an error of a raw request."""
    with pytest.raises(InvalidRequest, match="2 positional arguments"):
        generate.apply_async(args=["a", "b"], kwargs={"model": MODEL})
