"""Loading a model, in this process: what is wrong with its files is one error that names them."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.parts.tiny_model import CHAT_TEMPLATE, CONTEXT_TOKENS, end_id, make_tiny_model
from tasks.client.request.parameters import parse
from tasks.engine.failure import ran_out_of_memory
from tasks.engine.files.folder import context_tokens, find_model
from tasks.engine.files.integrity import folder_revision, weights_bytes
from tasks.engine.model.mlx import load_model
from tasks.errors import GenerationError, InvalidRequest, ModelLoadFailed, OutOfMemory
from tasks.messages.engine import EngineConfig, Sampling, Submit
from tasks.messages.memory import KvSize
from tasks.models.weights import read_tensors
from tests.garbage import EXAMPLES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tasks.engine.model.mlx import MlxRunner

pytestmark = pytest.mark.xdist_group("mlx")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "whole")


def _load(source: Path | str, **config: Any) -> MlxRunner:
    return load_model(EngineConfig(model="m", source=str(source), **config), lambda *_: None, "")


def _remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def _write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def _cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def _config(**changes: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **changes}))

    return change


def _folder(name: str) -> Callable[[Path], object]:
    """What Docker mounts for a file that is not there."""

    def change(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return change


def _own_code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_file": "evil.py"}))
    (folder / "evil.py").write_text("raise SystemExit('executed')")


def _missing_shard(folder: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_remove("model.safetensors"), "no weights"),
        (_cut, "model.safetensors"),
        (_write("model.safetensors", b"\0" * 64), "model.safetensors"),
        (_remove("config.json"), "config.json"),
        (_write("config.json", b"{not json"), "config.json"),
        (_remove("tokenizer.json"), "tokenizer"),
        (_write("tokenizer.json", b"{}"), "damaged"),
        (_folder("tokenizer.json"), "tokenizer.json: is a folder; put the model's own there"),
        (_config(model_type="quantum"), "quantum"),
        (_config(model_type="olmo"), "'olmo' ended with status 1"),
        (_config(intermediate_size=256), "damaged"),
        (_own_code, "trust_remote_code"),
        (_missing_shard, "model-00002-of-00002.safetensors"),
        (_write("config.json", b"[]"), "config.json"),
        (_write("config.json", b"{}"), "model_type"),
    ],
)
def test_a_damaged_model_is_one_clear_error(
    folder: Path, tmp_path: Path, damage: Callable[[Path], object], says: str
) -> None:
    """The error names the file or the folder and the problem, in one line."""
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for path in folder.iterdir():
        (damaged / path.name).write_bytes(path.read_bytes())
    damage(damaged)
    with pytest.raises(ModelLoadFailed) as raised:
        _load(damaged)
    assert str(damaged) in str(raised.value)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def test_every_cut_of_the_weights_is_noticed(folder: Path, tmp_path: Path) -> None:
    """Wherever a download broke off, loading says so."""
    damaged = make_tiny_model(tmp_path / "cut")
    path = damaged / "model.safetensors"
    whole = path.read_bytes()
    for length in (0, 4, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelLoadFailed, match=r"model\.safetensors"):
            _load(damaged)


def _answer(folder: Path) -> list[float]:
    """The logits of a few tokens."""
    model = _load(folder)._batch._model
    return [float(value) for value in model(mx.array([[1, 2, 3]]))[0, -1]]


def test_a_stray_file_of_weights_changes_nothing(folder: Path, tmp_path: Path) -> None:
    """Neither what is computed nor the revision, which other machines compare, nor the bytes that are counted."""
    copy = make_tiny_model(tmp_path / "copy")
    stray = make_tiny_model(tmp_path / "stray", seed=1) / "model.safetensors"
    for name in ("model-old.safetensors", "model-00001-of-00002.safetensors"):
        (copy / name).write_bytes(stray.read_bytes())
    assert _answer(copy) == _answer(folder)
    assert folder_revision(copy) == folder_revision(folder)
    assert weights_bytes(copy) == weights_bytes(folder)


def test_weights_are_loaded_by_the_names_in_the_index(folder: Path, tmp_path: Path) -> None:
    """mlx-lm itself would load none of these, and the stray one instead."""
    copy = make_tiny_model(tmp_path / "copy")
    weights = copy / "model.safetensors"
    named = {tensor.name: "weights.00.safetensors" for tensor in read_tensors(weights)}
    weights.rename(copy / "weights.00.safetensors")
    stray = make_tiny_model(tmp_path / "stray", seed=1) / "model.safetensors"
    weights.write_bytes(stray.read_bytes())
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": named}))
    assert _answer(copy) == _answer(folder)


def _change(name: str, content: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)

    return change


def _retrain(folder: Path) -> None:
    """One tensor has other numbers: its file keeps size and header."""
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    tensor = read_tensors(path)[3]
    at = len(content) - max(tensor.end for tensor in read_tensors(path))
    content[at + tensor.start : at + tensor.end] = bytes(tensor.end - tensor.start)
    path.write_bytes(content)


def test_copies_of_a_model_have_the_same_revision(folder: Path, tmp_path: Path) -> None:
    """A request may be resumed on another machine."""
    copy = make_tiny_model(tmp_path / "copy")
    (copy / "README.md").write_text("not a part of the model")
    assert folder_revision(copy) == folder_revision(folder) == find_model(str(folder), None)[1]


@pytest.mark.parametrize(
    "change",
    [
        _config(rope_theta=1.0),
        _config(quantization={"group_size": 32, "bits": 4}),
        _change("generation_config.json", '{"do_sample": false}'),
        _change("chat_template.jinja", "{{ 1 }}"),
        _change("additional_chat_templates/rag.jinja", "{{ 1 }}"),
        _change("special_tokens_map.json", "{}"),
        _change("adapter_config.json", "{}"),
        _change("merges.txt", "a b"),
        _change("tokenizer.model", "x"),
        _change("code/model.py", "x = 1"),
        _change("1_Pooling/config.json", "{}"),
        _change("2_Dense/model.safetensors", "x"),
        _retrain,
        _write("model.safetensors", b"damaged, and still something to be told apart"),
        _remove("model.safetensors"),
    ],
)
def test_whatever_decides_what_a_model_says_makes_another_revision(
    folder: Path, tmp_path: Path, change: Callable[[Path], object]
) -> None:
    """An answer must not go on with another template, other end tokens, or weights of another training."""
    other = make_tiny_model(tmp_path / "other")
    change(other)
    assert folder_revision(other) != folder_revision(folder)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("./nothing/here", "no such folder"),
        ("just-a-name", "no such folder"),
        ("a/b/c", "no such folder"),
        ("owner/-name-", "not a hub id"),
        ("owner/name", "HF_HUB_OFFLINE"),
    ],
)
def test_a_source_that_is_not_there(source: str, says: str) -> None:
    """Paths and hub ids that lead nowhere; the hub is offline in tests."""
    with pytest.raises(ModelLoadFailed, match=says):
        find_model(source, "main")


def test_a_file_is_not_a_model(folder: Path) -> None:
    """The folder has to be named, not a file in it."""
    with pytest.raises(ModelLoadFailed, match="is a file"):
        find_model(str(folder / "model.safetensors"), None)


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_what_the_hub_answers_becomes_one_error(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """Missing, forbidden, private and broken: each says what to do, and no address or token is in it."""
    import huggingface_hub
    from huggingface_hub import errors

    kinds = {401: errors.RepositoryNotFoundError, 403: errors.GatedRepoError, 404: errors.RevisionNotFoundError}
    response: Any = SimpleNamespace(status_code=status, headers={}, request=None)
    error = kinds.get(status, errors.HfHubHTTPError)("at https://hub.invalid/secret", response=response)

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ModelLoadFailed, match="owner/name@main") as raised:
        find_model("owner/name", "main")
    assert "hub.invalid" not in str(raised.value)


@pytest.mark.parametrize("error", [OSError(28, "No space left"), RuntimeError("No space left in the pipe")])
def test_what_else_goes_wrong_while_fetching(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """A full disk, an error of the HTTP library: its words are in ours."""
    import huggingface_hub

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ModelLoadFailed, match="No space left"):
        find_model("owner/name", None)


def test_a_hub_models_revision_is_its_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two machines that fetched the same commit may resume each other's requests."""
    import huggingface_hub

    snapshot = make_tiny_model(tmp_path / "snapshots" / "0123abcd")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(snapshot))
    assert find_model("owner/name", None) == (snapshot, "0123abcd")


def test_weights_over_the_budget_are_refused_before_they_are_loaded(folder: Path) -> None:
    """With both numbers."""
    with pytest.raises(OutOfMemory, match="the memory budget is 1000 bytes"):
        _load(folder, memory_budget_bytes=1000)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("[metal::malloc] Attempting to allocate 9 bytes")])
def test_running_out_of_memory_while_loading(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """It is the error out_of_memory, whichever way MLX says it."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("mlx_lm.utils.load_model", fail)
    with pytest.raises(OutOfMemory):
        _load(folder)


def test_quantised_weights_become_dense_on_the_cpu_if_they_fit(tmp_path: Path) -> None:
    """Dense float32 is faster there; where memory does not allow it they stay quantised."""
    quantised = _quantised(tmp_path)
    dense = _load(quantised).facts
    assert dense.accelerator == "cpu"
    kept = _load(quantised, memory_budget_bytes=dense.weights_bytes // 2).facts
    assert kept.weights_bytes < dense.weights_bytes // 2
    assert kept.revision == dense.revision


def _quantised(folder: Path) -> Path:
    from mlx_lm.utils import load_config, quantize_model, save_model
    from mlx_lm.utils import load_model as load

    plain = make_tiny_model(folder / "plain")
    model, _ = load(plain)
    model, config = quantize_model(model, load_config(plain), 32, 4)
    target = make_tiny_model(folder / "quantised")
    (target / "model.safetensors").unlink()
    save_model(target, model)
    (target / "config.json").write_text(json.dumps(config))
    return target


@pytest.mark.parametrize(("asked", "expected"), [(None, 2048), (50, 50), (8192, 8192)])
def test_the_catalogues_context_goes_before_the_models(tmp_path: Path, asked: int | None, expected: int) -> None:
    """It raises it as well as it lowers it: a file may say less than the model can, or nothing."""
    config = EngineConfig(model="m", context_tokens=asked)
    assert context_tokens(tmp_path, {"max_position_embeddings": 2048}, config) == expected


def test_a_context_that_nothing_tells_is_the_default_and_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The warning names the remedy."""
    assert context_tokens(tmp_path, {}, EngineConfig(model="m")) == 4096
    assert "context_tokens" in caplog.text


def test_a_catalogue_cannot_give_a_model_more_positions_than_it_has_learned(tmp_path: Path) -> None:
    """Beyond them there is nothing to read."""
    with pytest.raises(ModelLoadFailed, match="1024 positions"):
        context_tokens(
            tmp_path, {"model_type": "gpt2", "n_positions": 1024}, EngineConfig(model="m", context_tokens=2048)
        )


def test_a_rotary_scalings_factor_lengthens_the_context(tmp_path: Path) -> None:
    """YaRN as a model's card tells people to add it."""
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": CONTEXT_TOKENS}
    folder = make_tiny_model(tmp_path / "yarn", rope_scaling=scaling)
    assert _load(folder).facts.context_tokens == 4 * CONTEXT_TOKENS


def test_the_models_own_generation_config_is_read(tmp_path: Path) -> None:
    """Its sampling defaults, and its end tokens by id and by text, beside the tokenizer's own."""
    folder = make_tiny_model(tmp_path / "said")
    said = {"do_sample": False, "top_k": 5, "eos_token_id": [65, None, "<|im_start|>"]}
    (folder / "generation_config.json").write_text(json.dumps(said))
    facts = _load(folder).facts
    assert facts.sampling == {"temperature": 0.0, "top_k": 5}
    assert facts.end_ids == {65, end_id(folder), end_id(folder) - 1}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "[METAL] Command buffer execution failed: Insufficient Memory (kIOGPUCommandBufferCallbackErrorOutOfMemory)",
            True,
        ),
        ("[malloc] Unable to allocate 12 bytes.", True),
        ("cudaMallocAsync failed: out of memory", True),
        ("[matmul] Last dimension of first input must match", False),
    ],
)
def test_how_mlx_says_that_memory_ran_out(message: str, expected: bool) -> None:
    """Metal, CUDA and the CPU each have their words; other errors are not taken for it."""
    assert ran_out_of_memory(RuntimeError(message)) == expected


MESSAGES = [{"role": "user", "content": "hi"}]


def _with_templates(folder: Path, files: dict[str, str]) -> Path:
    make_tiny_model(folder, chat_template=False)
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    return folder


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("chat_template.json", json.dumps({"chat_template": CHAT_TEMPLATE})),
        ("chat_template.jinja", CHAT_TEMPLATE),
    ],
)
def test_a_chat_template_is_used_whichever_file_has_it(
    runner: MlxRunner, tmp_path: Path, name: str, content: str
) -> None:
    """The prompt is that of the same template in tokenizer_config.json."""
    other = _load(_with_templates(tmp_path / "other", {name: content}))
    assert other.encode(_submit(messages=MESSAGES)) == runner.encode(_submit(messages=MESSAGES))


def test_chat_templates_that_are_not_the_default_are_named(runner: MlxRunner, tmp_path: Path) -> None:
    """By the error of a conversation, and by that of a catalogue that names one that there is not."""
    folder = _with_templates(tmp_path / "named", {"additional_chat_templates/rag.jinja": CHAT_TEMPLATE})
    with pytest.raises(InvalidRequest, match=r"^messages: .*rag \(additional_chat_templates/rag\.jinja\)"):
        _load(folder).encode(_submit(messages=MESSAGES))
    with pytest.raises(ModelLoadFailed, match=r"'tool_use'.* it has rag"):
        _load(folder, chat_template="tool_use")
    assert _load(folder, chat_template="rag").encode(_submit(messages=MESSAGES)) == runner.encode(
        _submit(messages=MESSAGES)
    )


@pytest.fixture(scope="module")
def runner(folder: Path) -> MlxRunner:
    """The loaded model."""
    return _load(folder)


def test_sizes_are_those_of_the_model(runner: MlxRunner) -> None:
    """Two layers of keys and values, two heads of 16 float32 each, for one token; the context as configured."""
    assert runner.facts.kv == KvSize(bytes_per_token=2 * 2 * 2 * 16 * 4)
    assert runner.facts.context_tokens == CONTEXT_TOKENS


def _submit(**fields: Any) -> Submit:
    return Submit(
        **{"task_id": "t", "messages": None, "prompt": None, "max_tokens": 1, "sampling": Sampling(), **fields}
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "\ud800"},
        {"messages": [{"role": "user", "content": "\ud800"}]},
        {"messages": [{"role": "user", "content": ["no part"]}]},
        {"messages": [{"role": "user", "content": "hi"}], "chat_template_kwargs": {"tools": []}},
    ],
)
def test_prompts_that_cannot_be_encoded(runner: MlxRunner, fields: dict[str, Any]) -> None:
    """Each is the request's fault, by its own error."""
    with pytest.raises(InvalidRequest):
        runner.encode(_submit(**fields))


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[9].content.x }}", "template"),
    ],
)
def test_what_a_chat_template_refuses(
    runner: MlxRunner, monkeypatch: pytest.MonkeyPatch, template: str, says: str
) -> None:
    """Its own words reach the person who asked."""
    monkeypatch.setattr(runner._answers.tokenizer._tokenizer, "chat_template", template)
    with pytest.raises(GenerationError, match=says) as raised:
        runner.encode(_submit(messages=[{"role": "user", "content": "hi"}]))
    assert raised.value.code == "invalid_request"


#: As Qwen's and Llama's write a call: arguments as JSON of an object.
TOOL_TEMPLATE = (
    "{% for message in messages %}[{{ message.role }}]"
    "{% if message.tool_calls %}{% for call in message.tool_calls %}"
    "{{ call.function.name }}({{ call.function.arguments | tojson }}, {{ call.function.arguments.a + 1 }}, {{ call.id }})"
    "{% endfor %}"
    "{% else %}{{ message.content }}{% if message.tool_call_id %}<{{ message.tool_call_id }}>{% endif %}{% endif %}"
    "{% endfor %}"
)
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2, "b": "2"}'}}
TOOL_HISTORY = [
    {"role": "user", "content": "2 + 2?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "4"},
]


def test_a_tool_history_reaches_the_template(tmp_path: Path) -> None:
    """A call's arguments are an object to the template, its message says nothing; the tool's message names the call."""
    tooled = _load(make_tiny_model(tmp_path / "tooled", chat_template=TOOL_TEMPLATE))
    told = parse({"messages": TOOL_HISTORY}).conversation()
    text = tooled._answers.tokenizer.decode(tooled.encode(_submit(messages=told)).ids)
    assert text == '[user]2 + 2?[assistant]add({"a": 2, "b": "2"}, 3, c1)[tool]4<c1>'


def test_a_template_without_tool_calls(runner: MlxRunner) -> None:
    """A template that leaves calls out without a word is an error that says so."""
    with pytest.raises(InvalidRequest, match=r"leaves out tool_calls; send what was called as content"):
        runner.encode(_submit(messages=parse({"messages": TOOL_HISTORY}).conversation()))


FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
#: The header of a safetensors file; what comes after it is numbers, any of which are weights.
HEADER = 2048


@settings(max_examples=min(EXAMPLES, 10_000) // 5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(FILES), cut=st.booleans(), data=st.data())
def test_any_damage_is_one_error(folder: Path, tmp_path: Path, name: str, cut: bool, data: st.DataObject) -> None:
    """A model with a file that ends anywhere, or with one bit flipped anywhere, is loaded or is one clear error."""
    copy = shutil.copytree(folder, tmp_path / "copy", dirs_exist_ok=True)
    content = bytearray((copy / name).read_bytes())
    end = len(content) if cut or name != "model.safetensors" else HEADER
    place = data.draw(st.integers(0, end - 1), label="place")
    if cut:
        del content[place:]
    else:
        content[place] ^= 1 << data.draw(st.integers(0, 7), label="bit")
    (copy / name).write_bytes(content)
    try:
        _load(copy)
    except (ModelLoadFailed, OutOfMemory) as error:
        said = str(error)
    else:
        said = ""
    assert "\n" not in said
    assert len(said) < 1_000
