"""The real engine on tiny models: batching, sampling, text, prefix reuse, memory and everything that can be wrong."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from benchmarks.parts.tiny_model import end_id, make_tiny_model, write_safetensors
from tasks.engine.generation.memory import MemoryBound
from tasks.messages.engine import EngineConfig, Sampling
from tasks.messages.memory import STEP_TOKENS
from tests.engine_client import GREEDY, EngineClient, resume_from

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("tiny")

SCRIPT = "Grün 😀,dwj!"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "random")


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[EngineClient]:
    """The random model, with a prompt cache and up to 16 rows."""
    config = EngineConfig(
        model="random", source=str(folder), max_batch=16, prefill_step_tokens=128, prompt_cache_bytes=32 << 20
    )
    with EngineClient(config) as client:
        assert client.ready
        yield client


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineClient]:
    """A model without chat template whose greedy answer to everything is one sentence."""
    folder = make_tiny_model(tmp_path_factory.mktemp("models") / "scripted", script=SCRIPT, chat_template=False)
    with EngineClient(EngineConfig(model="scripted", source=str(folder))) as client:
        assert client.ready
        yield client


@pytest.fixture(scope="module")
def broken_for_z(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineClient]:
    """A model with a NaN in the embedding of one letter, and a prompt cache."""
    folder = make_tiny_model(tmp_path_factory.mktemp("models") / "broken", script=SCRIPT)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.embed_tokens.weight"][Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id("Z"), 0] = (
        math.nan
    )
    write_safetensors(folder / "model.safetensors", tensors)
    config = EngineConfig(model="broken-for-Z", source=str(folder), prompt_cache_bytes=32 << 20)
    with EngineClient(config) as client:
        assert client.ready
        yield client


@pytest.fixture
def endless(folder: Path) -> Sampling:
    """Greedy, and never an end token."""
    return Sampling(temperature=0.0, logit_bias={end_id(folder): -1000.0})


def test_text_comes_unbroken_and_ends_at_the_end_token(scripted: EngineClient) -> None:
    """Accents and an emoji take several tokens each; every chunk is whole characters, and the end token says nothing."""
    answer = scripted.ask("say it", 100)
    assert answer.text == SCRIPT
    assert answer.reason == "stop"
    assert answer.finished is not None
    assert answer.finished.completion_tokens == len(answer.ids) == len(SCRIPT.encode())
    assert "".join(answer.texts) == SCRIPT
    assert "😀" in answer.texts
    assert not any("\ufffd" in text for text in answer.texts)


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(seed=1, top_p=0.5, logprobs=True, top_logprobs=2)])
def test_logits_that_are_no_numbers_are_an_error_of_that_request(
    broken_for_z: EngineClient, sampling: Sampling
) -> None:
    """It names the model, and never is text; neighbours go on, and what was computed is not kept for others."""
    first = broken_for_z.submit("the long way", 12, sampling=sampling)
    broken = broken_for_z.submit("a Z in the middle, and more", 12, sampling=sampling)
    second = broken_for_z.submit("another way", 12, sampling=sampling)
    answer = broken_for_z.answer(broken)
    assert answer.failed is not None
    assert answer.failed.code == "internal_error"
    assert "model 'broken-for-Z' computed logits that are not finite numbers" in answer.failed.message
    assert (answer.ids, answer.text) == ([], "")
    for task_id in (first, second):
        assert broken_for_z.answer(task_id).reason in {"stop", "length"}
        assert broken_for_z.answer(task_id).text
    again = broken_for_z.ask("a Z in the middle, and more", 12, sampling=sampling)
    assert again.started is not None
    assert again.started.cached_tokens == 0


@pytest.mark.parametrize("stop", ["😀,d", "ün", "j"])
def test_stop_strings_end_the_text_before_them(scripted: EngineClient, stop: str) -> None:
    """Wherever their bytes fall on tokens, no part of them is released."""
    answer = scripted.ask("say it", 100, stop=("not this", stop))
    assert answer.text == SCRIPT[: SCRIPT.index(stop)]
    assert answer.reason == "stop"


def test_messages_need_a_chat_template(scripted: EngineClient) -> None:
    """The error says to send a prompt instead, and the engine goes on."""
    answer = scripted.ask([{"role": "user", "content": "hello"}], 4)
    assert answer.failed is not None
    assert answer.failed.code == "invalid_request"
    assert "prompt" in answer.failed.message
    assert scripted.ask("hello", 100).text == SCRIPT


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"chat_template_kwargs": {"tokenize": True}}, "chat_template_kwargs.tokenize"),
        ({"chat_template_kwargs": {"chat_template": "{{ 1 }}"}}, "chat_template_kwargs.chat_template"),
        ({"sampling": Sampling(logit_bias={10**6: 1.0})}, "logit_bias"),
    ],
)
def test_fields_that_the_model_cannot_honour_are_named(engine: EngineClient, fields: dict[str, Any], says: str) -> None:
    """One clear error each."""
    answer = engine.ask([{"role": "user", "content": "hello"}], 4, **fields)
    assert answer.failed is not None
    assert answer.failed.code == "invalid_request"
    assert says in answer.failed.message


def test_content_in_text_parts_is_joined_and_other_parts_are_refused(engine: EngineClient) -> None:
    """OpenAI's list form of a message's content."""
    plain = engine.ask([{"role": "user", "content": "hello there"}], 1)
    parts = [{"type": "text", "text": "hello "}, {"type": "text", "text": "there"}]
    assert engine.ask([{"role": "user", "content": parts}], 1).ids == plain.ids
    image = engine.ask([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}], 1)
    assert image.failed is not None
    assert "image_url" in image.failed.message


def test_a_burst_of_sixteen_is_one_batch(engine: EngineClient, endless: Sampling) -> None:
    """Sixteen requests of 120 tokens take not many more than 120 decode steps, though some begin a few steps later."""
    engine.wait(lambda: not engine.outputs or not engine.outputs[-1].running)
    before = engine.steps
    with engine.held():
        tasks = [engine.submit(f"number {number} asks", 120, sampling=endless) for number in range(16)]
    for task_id in tasks:
        assert len(engine.answer(task_id).ids) == 120
    assert engine.steps - before <= 120 + 120


def test_a_mixed_batch_gives_each_what_it_asked_for(engine: EngineClient, folder: Path) -> None:
    """Greedy, sampled, seeded, penalised, with logprobs, with a stop string: together as they are alone."""
    bias = {end_id(folder): -1000.0}
    whole = engine.ask("mixed", 20, sampling=Sampling(temperature=0.0, logit_bias=bias)).text
    mixed: list[dict[str, Any]] = [
        {"sampling": Sampling(temperature=0.0, logit_bias=bias)},
        {"sampling": Sampling(temperature=0.8, top_p=0.9, seed=3, logit_bias=bias)},
        {"sampling": Sampling(temperature=1.2, top_k=20, seed=4, logit_bias=bias)},
        {"sampling": Sampling(temperature=0.0, repetition_penalty=1.3, logit_bias=bias)},
        {"sampling": Sampling(temperature=0.0, frequency_penalty=1.0, presence_penalty=0.5, logit_bias=bias)},
        {"sampling": Sampling(temperature=0.0, logprobs=True, top_logprobs=3, logit_bias=bias)},
        {"sampling": Sampling(temperature=0.0, logit_bias={**bias, 65: 1000.0})},
        {"sampling": Sampling(temperature=0.0, logit_bias=bias), "stop": (whole[8:12],)},
    ]
    lengths = [20, 7, 33, 20, 12, 20, 5, 20]
    alone = [engine.ask("mixed", length, **fields) for length, fields in zip(lengths, mixed, strict=True)]
    tasks = [engine.submit("mixed", length, **fields) for length, fields in zip(lengths, mixed, strict=True)]
    together = [engine.answer(task_id) for task_id in tasks]
    assert [answer.ids for answer in together] == [answer.ids for answer in alone]
    assert [answer.reason for answer in together] == [*["length"] * 7, "stop"]
    assert together[3].ids != together[0].ids
    assert together[6].ids == [65] * 5
    assert len(together[5].logprobs) == 20
    assert [logprob.id for logprob in together[5].logprobs] == [logprob.top[0][0] for logprob in together[5].logprobs]


def test_a_penalty_counts_the_tokens_of_an_earlier_attempt(engine: EngineClient, folder: Path) -> None:
    """A resumed request goes on as the uninterrupted one did, although its penalties look back."""
    sampling = Sampling(
        temperature=0.0, frequency_penalty=1.5, repetition_penalty=1.2, logit_bias={end_id(folder): -1000.0}
    )
    whole = engine.ask("penalised", 20, sampling=sampling)
    answer = engine.ask("penalised", 20, sampling=sampling, resume=resume_from(whole, 9, engine.ready.revision))
    assert whole.ids[:9] + answer.ids == whole.ids


def test_the_next_turn_of_a_conversation_prefills_only_what_is_new(engine: EngineClient) -> None:
    """The first turn's prompt and answer are in the prompt cache; cached_tokens says so."""
    messages = [{"role": "user", "content": "tell me a long story about a tiny model that is short on memory"}]
    first = engine.ask(messages, 24)
    before = engine.prefilled
    messages += [{"role": "assistant", "content": first.text}, {"role": "user", "content": "and then?"}]
    second = engine.ask(messages, 4)
    assert first.started is not None
    assert second.started is not None
    new = second.started.prompt_tokens - second.started.cached_tokens
    assert second.started.cached_tokens >= first.started.prompt_tokens
    assert engine.prefilled - before <= new
    assert second.finished is not None
    assert second.finished.cached_tokens == second.started.cached_tokens


def test_a_repeated_prompt_needs_no_prefill(engine: EngineClient, endless: Sampling) -> None:
    """All of it but the last token, which decoding starts from, is cached; the answer is the same."""
    first = engine.ask("a prompt that comes twice", 8, sampling=endless)
    before = engine.prefilled
    second = engine.ask("a prompt that comes twice", 8, sampling=endless)
    assert second.ids == first.ids
    assert second.started is not None
    assert second.started.cached_tokens == second.started.prompt_tokens - 1
    assert engine.prefilled == before


def test_a_long_prefix_that_arrives_twice_at_once_is_prefilled_once(engine: EngineClient, endless: Sampling) -> None:
    """The second request waits for the first one's prefill, and computes its own end only."""
    prefix = "system: you are most helpful and precise, number one. " * 12
    alone = engine.ask(prefix[:-1] + "0", 6, sampling=endless)
    assert alone.started is not None
    length = alone.started.prompt_tokens
    prefix = prefix.replace("one", "two")
    before = engine.prefilled
    tasks = [engine.submit(f"{prefix} user {number}", 6, sampling=endless) for number in range(4)]
    for task_id in tasks:
        assert engine.answer(task_id).reason == "length"
    assert engine.prefilled - before <= length + 4 * 32
    started = [engine.answers[task_id].started for task_id in tasks]
    assert sum(answer is not None and answer.cached_tokens > length // 2 for answer in started) == 3


def test_a_long_prefill_lets_running_streams_go_on(engine: EngineClient, endless: Sampling) -> None:
    """Between two decode steps no more than one bounded prefill step is computed."""
    streams = [engine.submit(f"stream {number}", None, sampling=endless) for number in range(4)]
    for task_id in streams:
        engine.tokens(task_id, 4)
    at = len(engine.outputs)
    long = engine.submit("many words " * 150, 2, sampling=endless)
    answer = engine.answer(long)
    assert answer.started is not None
    assert answer.started.prompt_tokens > 1000
    prefilled = Counter[int]()
    decoded = Counter[str]()
    for output in engine.outputs[at:]:
        prefilled[output.step] += output.prefilled
        decoded.update(event.task_id for event in output.events)
    assert max(prefilled.values()) <= 128
    assert prefilled.total() >= 1000
    assert all(decoded[task_id] >= 1000 // 128 for task_id in streams)
    for task_id in streams:
        engine.abort(task_id)
        assert engine.answer(task_id).reason == "cancelled"


def test_a_prefill_can_be_aborted(engine: EngineClient, endless: Sampling) -> None:
    """A long prompt that was given up is not computed to its end."""
    stream = engine.submit("a stream", None, sampling=endless)
    engine.tokens(stream, 4)
    for number in range(30):  # where this process stands still, the prefill is over before the abort
        before = engine.prefilled
        long = engine.submit(f"{number} is " + "given up " * 200, 2, sampling=endless)
        engine.wait(lambda before=before: engine.prefilled > before)  # type: ignore[misc]
        engine.abort(long)
        answer = engine.answer(long)
        if answer.reason == "cancelled" and not answer.ids:
            break
    assert (answer.reason, answer.ids) == ("cancelled", [])
    engine.abort(stream)
    engine.answer(stream)
    assert engine.prefilled - before < 1800


def test_a_model_with_a_sliding_window_is_served(tmp_path: Path) -> None:
    """Its caches rotate and cannot be trimmed: prefixes are reused where that is right, and answers stay the same."""
    folder = make_tiny_model(
        tmp_path / "sliding", layer_types=["sliding_attention", "full_attention"], sliding_window=32
    )
    sampling = Sampling(temperature=0.0, logit_bias={end_id(folder): -1000.0})
    config = EngineConfig(model="sliding", source=str(folder), prompt_cache_bytes=8 << 20)
    prompt = "a window slides over this text, which is longer than the window is. " * 2
    with EngineClient(config) as engine:
        alone = engine.ask(prompt, 12, sampling=sampling)
        tasks = [engine.submit(prompt + " " * (number % 2), 12, sampling=sampling) for number in range(4)]
        answers = [engine.answer(task_id) for task_id in tasks]
        assert answers[0].ids == answers[2].ids == alone.ids
        assert answers[1].ids == answers[3].ids
        assert engine.ask(prompt, 12, sampling=sampling).ids == alone.ids


def test_memory_admission(folder: Path, endless: Sampling) -> None:
    """With room for two rows at most two run, what can never fit is refused, and MLX stays under the budget."""
    with EngineClient(EngineConfig(model="random", source=str(folder))) as engine:
        ready = engine.ready
    empty = MemoryBound(0, ready.weights_bytes, ready.kv)
    rows = 2 * ready.kv.row_bytes(STEP_TOKENS)
    total = ready.weights_bytes + empty.margin_bytes + rows
    config = EngineConfig(
        model="random", source=str(folder), max_batch=8, memory_budget_bytes=total, prompt_cache_bytes=1 << 30
    )
    with EngineClient(config) as engine:
        tasks = [engine.submit(f"row {number}", 40, sampling=endless) for number in range(6)]
        never = engine.ask("never", 3 * STEP_TOKENS, sampling=endless)
        assert never.failed is not None
        assert never.failed.code == "out_of_memory"
        assert str(total) in never.failed.message
        for task_id in tasks:
            assert engine.answer(task_id).reason == "length"
        assert max(output.running for output in engine.outputs) <= 2
        assert max(output.active_bytes or 0 for output in engine.outputs) <= total


def test_the_prompt_cache_stays_within_its_bytes(folder: Path, endless: Sampling) -> None:
    """Many different prompts leave no more than prompt_cache_bytes behind."""
    most = 300_000
    config = EngineConfig(model="random", source=str(folder), prompt_cache_bytes=most)
    with EngineClient(config) as engine:
        engine.ask("0", 1, sampling=endless)
        start = engine.outputs[-1].active_bytes
        assert start is not None
        for number in range(12):
            engine.ask(f"{number} is a prompt of its own " * 6, 4, sampling=endless)
        assert (engine.outputs[-1].active_bytes or 0) <= start + most + 100_000


@pytest.mark.parametrize(
    ("source", "code", "says"),
    [
        ("/no/such/folder", "model_load_failed", "no such folder"),
        ("owner/name", "model_load_failed", "owner/name"),
        ("", "out_of_memory", "1000 bytes"),
    ],
)
def test_a_model_that_cannot_be_loaded(folder: Path, source: str, code: str, says: str) -> None:
    """A missing folder, a hub id while the hub is out of reach, too little memory: one message, then the end."""
    config = EngineConfig(model="m", source=source or str(folder), memory_budget_bytes=1000)
    with EngineClient(config) as engine:
        failed = engine.load_failed
        engine.wait(lambda: engine.gone)
    assert failed.code == code
    assert says in failed.message
    assert "Traceback" not in failed.message


def test_an_answer_on_the_terminal(folder: Path) -> None:
    """``python -m tasks.engine FOLDER --prompt hi`` prints an answer."""
    command = [sys.executable, "-m", "tasks.engine", str(folder), "--prompt", "hi", "--max-tokens", "5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "prompt tokens" in done.stderr


def test_the_worker_reads_which_blas_is_used(engine: EngineClient) -> None:
    """Ready names it where MLX needs one."""
    assert engine.ready.blas in {"", "OpenBLAS", "MKL", "reference"}
    assert engine.ask("hello", 1, sampling=GREEDY).done
