"""The batch on a real tiny model, in this process: what is computed when, and that it is right."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.parts.tiny_model import end_id, make_tiny_model
from tasks.engine.files.folder import read_folder
from tasks.engine.generation.loop import GenerationLoop
from tasks.engine.generation.runner import OutOfDeviceMemory
from tasks.engine.model.batching.batch import HOLD_STEPS, Batch
from tasks.engine.model.batching.pace import ROW_TOKENS, Pace, plan, worth_gathering
from tasks.engine.model.batching.prefixes import SHARED_TOKENS, common_prefix
from tasks.engine.model.batching.stepping import Stepping
from tasks.engine.model.layout.dense import apply
from tasks.engine.model.layout.host import prepare
from tasks.engine.model.layout.panels import Layout, Streams
from tasks.engine.model.loading import load_weights
from tasks.engine.model.mlx import MlxRunner, load_model
from tasks.engine.model.reference import Reference
from tasks.engine.model.selftest import try_out
from tasks.engine.sampling.sampler import Drawn
from tasks.engine.text.tokenizer import load_tokenizer
from tasks.messages.engine import EngineConfig, Sampling
from tests.unit.engine.generation.test_engine_loop import Loop

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


pytestmark = pytest.mark.xdist_group("mlx")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(params=[False, True], ids=["one-by-one", "ahead"])
def ahead(request: pytest.FixtureRequest) -> bool:
    """Both ways of stepping: the CPU's, and the GPU's, where a step is launched before the last one is read."""
    return bool(request.param)


@pytest.fixture
def make_loop(folder: Path, ahead: bool) -> Callable[..., Loop]:
    """Makes engines that are turned by hand."""

    def make_loop(**config: Any) -> Loop:
        settings: dict[str, Any] = {"prompt_cache_bytes": 8 << 20, "prefill_step_tokens": 64, **config}
        engine = EngineConfig(model="tiny", source=str(folder), **settings)
        adjust = (lambda usual: replace(usual, ahead=True)) if ahead else (lambda usual: usual)
        return Loop(max_batch=16, runner=load_model(engine, lambda *_: None, "", adjust=adjust))

    return make_loop


@pytest.fixture
def loop(make_loop: Callable[..., Loop]) -> Loop:
    """An engine with a prompt cache."""
    return make_loop()


def _numpys_loop(folder: Path) -> Loop:
    """An engine whose steps and prompts numpy computes, as it does where that is quicker."""
    config = EngineConfig(model="tiny", source=str(folder), prefill_step_tokens=64)
    opened = read_folder(config)
    model = load_weights(opened, config)
    assert apply(model, {"layers": Layout(8)}, Streams(1), Reference(model))
    prepare(model)
    model.host_tokens, model.host_prompts = 64, True
    tokenizer = load_tokenizer(folder, trust_remote_code=False, ends=opened.generation.ends, template=None)
    support = try_out(model)
    stepping = Stepping.of(support, on_gpu=False, drafts=config.drafts)
    return Loop(max_batch=16, runner=MlxRunner(config, model, tokenizer, opened, "", support, stepping))


@pytest.fixture
def endless(folder: Path) -> Sampling:
    """Greedy, and never an end token."""
    return Sampling(temperature=0.0, logit_bias={end_id(folder): -1000.0})


def test_greedy_answers_are_those_of_mlx_lm(loop: Loop, folder: Path, endless: Sampling) -> None:
    """Rows of different lengths, that come and go, say what mlx-lm says to each prompt alone."""
    import mlx.core as mx
    from mlx_lm.generate import generate_step
    from mlx_lm.utils import load

    model, tokenizer = load(str(folder))[:2]
    prompts = {f"{'a word ' * number}and prompt {number}": 3 + 5 * number for number in range(8)}
    for number, (prompt, length) in enumerate(prompts.items()):
        loop.submit(prompt, length, sampling=endless)
        loop.turn(number % 3)
    loop.finish()
    barred = mx.array([-1000.0 if token == end_id(folder) else 0.0 for token in range(len(tokenizer))])
    for prompt, length in prompts.items():
        steps = generate_step(
            mx.array(tokenizer.encode(prompt)), model, logits_processors=[lambda _, logits: logits + barred]
        )
        assert loop.answers[prompt].ids == [int(token) for token, _ in itertools.islice(steps, length)]


def test_an_idle_engine_prefills_a_burst_before_it_decodes(make_loop: Callable[..., Loop], endless: Sampling) -> None:
    """Sixteen short prompts are computed in one turn, and the next has the first tokens that it drew."""
    loop = make_loop(prefill_step_tokens=128)
    for number in range(16):
        loop.submit(f"short {number}", 3, sampling=endless)
    loop.turn()
    assert [answer.ids for answer in loop.answers.values()] == [[]] * 16
    loop.turn()
    assert [len(answer.ids) for answer in loop.answers.values()] == [1] * 16
    loop.turn()
    assert [len(answer.ids) for answer in loop.answers.values()] == [2] * 16


def test_an_abort_of_a_prefilling_row_stops_its_prefill(loop: Loop, endless: Sampling) -> None:
    """After the turn that sees the abort no more of it is computed, and the rest go on."""
    loop.submit("stream", 60, sampling=endless)
    loop.turn(3)
    loop.submit("long " * 100, 4, sampling=endless)
    loop.turn(2)
    computed = loop.runner.prefilled_tokens
    loop.abort("long " * 100)
    loop.turn(3)
    assert loop.runner.prefilled_tokens == computed
    assert loop.answers["long " * 100].reason == "cancelled"
    assert not loop.answers["stream"].done


def test_a_row_after_an_abort_of_all_others(loop: Loop, endless: Sampling) -> None:
    """The step in flight was for nobody; the next request starts as on a fresh engine."""
    for name in ("aborted", "next"):
        loop.submit(name, 5, sampling=endless)
        loop.turn(2)
        assert len(loop.answers[name].ids) == 1
        if name == "aborted":
            loop.abort(name)
    loop.finish()
    assert loop.answers["next"].reason == "length"


def test_no_step_is_computed_after_the_last_token(
    loop: Loop, endless: Sampling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests that end together by length cost a decode step for each token, but for the first: the prefill draws that."""
    launched: list[int] = []
    decoding = type(_batch(loop)._decoding)
    launch = decoding.launch

    def count(self: Any) -> None:
        launched.append(len(self.rows))
        launch(self)

    monkeypatch.setattr(decoding, "launch", count)
    for name in "abc":
        loop.submit(f"prompt {name}", 7, sampling=endless)
    loop.finish()
    assert launched == [3] * 6


@pytest.mark.parametrize("logprobs", [False, True])
def test_one_wait_for_the_device_in_each_step(
    loop: Loop, endless: Sampling, monkeypatch: pytest.MonkeyPatch, logprobs: bool
) -> None:
    """However many rows, whatever their parameters: a step waits for the device once, and reads scores only if asked for."""
    waits: list[int] = []
    read = Drawn.read

    def count(self: Drawn, uids: Any) -> Any:
        waits.append(len(uids))
        assert (self.scores is not None) is logprobs
        return read(self, uids)

    monkeypatch.setattr(Drawn, "read", count)
    for number in range(4):
        sampling = replace(endless, temperature=number / 2, logprobs=logprobs, top_logprobs=number if logprobs else 0)
        loop.submit(f"prompt {number}", 12, sampling=sampling)
    loop.finish()
    assert sum(waits) == 4 * 12
    assert len(waits) == 12


def test_decoding_goes_on_beside_a_prefill_that_ends(loop: Loop, endless: Sampling) -> None:
    """A row that joins brings no turn without tokens for those that run."""
    loop.submit("stream", 40, sampling=endless)
    loop.turn(2)
    loop.submit("joins " * 20, 5, sampling=endless)
    counts = []
    for _ in range(20):
        before = len(loop.answers["stream"].ids)
        loop.turn()
        counts.append(len(loop.answers["stream"].ids) - before)
    assert counts == [1] * 20


def test_a_step_without_memory_puts_rows_back_and_they_go_on(
    make_loop: Callable[..., Loop], endless: Sampling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLX raises in the middle; each request says in the end what it would have said."""
    alone = make_loop()
    spoilt = make_loop()
    for loop in (alone, spoilt):
        for number in range(4):
            loop.submit(f"request {number}", 12, sampling=endless)
    alone.finish()
    spoilt.turn(5)

    def fail() -> None:
        raise RuntimeError("[metal::malloc] Attempting to allocate 1 bytes which is greater than the maximum")

    monkeypatch.setattr(_batch(spoilt)._decoding, "step", fail)
    spoilt.finish()
    assert {name: answer.ids for name, answer in spoilt.answers.items()} == {
        name: answer.ids for name, answer in alone.answers.items()
    }
    assert max(output.running for output in spoilt.outputs[-12:]) <= 2


def test_other_errors_of_mlx_are_not_taken_for_it(
    loop: Loop, endless: Sampling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug ends the engine, as it should."""

    def fail() -> None:
        raise RuntimeError("[matmul] shapes do not match")

    loop.submit("a", 4, sampling=endless)
    loop.turn()
    monkeypatch.setattr(_batch(loop)._decoding, "step", fail)
    with pytest.raises(RuntimeError, match="shapes"):
        loop.turn()


def test_without_a_prompt_cache_nothing_is_kept(make_loop: Callable[..., Loop], endless: Sampling) -> None:
    """prompt_cache_bytes 0: the same prompt is computed again."""
    loop = make_loop(prompt_cache_bytes=0)
    for name in ("first", "second"):
        loop.submit(name, 2, prompt="the same words " * 10, sampling=endless)
        loop.finish()
    started = loop.answers["second"].started
    assert started is not None
    assert started.cached_tokens == 0
    assert _batch(loop).prompt_cache_bytes == 0


def test_a_seed_at_a_position_draws_the_same_after_a_restart(loop: Loop, folder: Path) -> None:
    """A resumed row in other company draws what the first attempt drew."""
    from tests.engine_client import resume_from

    sampling = Sampling(temperature=1.0, seed=5, logit_bias={end_id(folder): -1000.0})
    loop.submit("whole", 15, prompt="seeded", sampling=sampling)
    loop.finish()
    whole = loop.answers["whole"]
    loop.submit("other", 15, prompt="company", sampling=sampling)
    resume = resume_from(whole, 6, loop.runner.facts.revision)
    loop.submit("resumed", 15, prompt="seeded", sampling=sampling, resume=resume)
    loop.finish()
    resumed = loop.answers["resumed"]
    assert whole.ids[:6] + resumed.ids == whole.ids
    assert resumed.started is not None
    assert resumed.started.cached_tokens <= resumed.started.prompt_tokens, "tokens of the answer are none of the prompt"


def test_a_seed_says_the_same_in_batches_of_one_two_and_sixteen(
    folder: Path, make_loop: Callable[..., Loop], endless: Sampling, ahead: bool
) -> None:
    """MLX draws otherwise for a lone row than for several; here neither the batch's size matters nor who computes its steps."""
    bias = endless.logit_bias
    asked = [
        Sampling(temperature=1.0, seed=5, logit_bias=bias),
        Sampling(temperature=1.3, top_p=0.8, seed=6, logit_bias=bias),
        Sampling(temperature=0.8, top_k=20, min_p=0.05, seed=7, logit_bias=bias),
        Sampling(temperature=1.1, repetition_penalty=1.2, presence_penalty=0.5, seed=8, logit_bias=bias),
    ]
    said = set()
    for on_numpy in (False,) if ahead else (False, True):
        loop = _numpys_loop(folder) if on_numpy else make_loop()
        for size in (1, 2, 16):
            rows = [f"{on_numpy} {size} {row}" for row in range(size)]
            for row, name in enumerate(rows):
                loop.submit(name, 12, prompt="seeded" + "!" * row, sampling=asked[row % len(asked)])
            loop.finish()
            said.add(tuple(loop.answers[rows[0]].ids))
        for number, sampling in enumerate(asked[1:], 1):
            loop.submit(f"{on_numpy} alone {number}", 12, prompt="seeded" + "!" * number, sampling=sampling)
            loop.finish()
            assert loop.answers[f"{on_numpy} alone {number}"].ids == loop.answers[f"{on_numpy} 16 {number}"].ids
    assert len(said) == 1
    assert len(set(said.pop())) > 6


def _batch(loop: Loop) -> Batch:
    runner: Any = loop.runner
    batch: Batch = runner._batch
    return batch


@pytest.mark.parametrize(
    ("todo", "target", "most", "expected"),
    [
        ([33] * 16, 1024, 1024, [33] * 16),
        ([1500], 64, 256, [64]),
        ([33, 33], 64, 256, [33, 33]),
        ([1500, 10], 64, 256, [32, 10]),
        ([70], 64, 64, [64]),
        ([70], 64, 256, [70]),
        ([5, 5, 5], 2, 2, [1, 1, 1]),
    ],
)
def test_a_prefill_step_is_bounded_and_shared(todo: list[int], target: int, most: int, expected: list[int]) -> None:
    """Equal shares of the target; a share is stretched for a few last tokens if the bound allows it."""
    assert plan(todo, target, most) == expected


def test_common_prefix() -> None:
    """How many tokens are alike from the start, beyond the length that is worth looking for."""
    assert common_prefix([1, 2, 3], [1, 2, 4]) == 2
    assert common_prefix([], [1]) == 0
    long = list(range(SHARED_TOKENS + 10))
    assert common_prefix(long, [*long[:-3], 0, 0, 0]) == len(long) - 3


def test_the_pace_of_a_prefill_follows_the_machine() -> None:
    """Until both are known two rows; then as many as take five decode steps, within the bound, one row at least."""
    pace = Pace()
    assert pace.tokens(5, 256) == 2 * ROW_TOKENS
    assert pace.tokens(10, 256) == 4 * ROW_TOKENS
    pace.stepped(4, 0.1)
    pace.prefilled(64, 0.3, beside_a_step=True)
    assert pace.tokens(5, 256) == 240
    assert pace.tokens(5, 100) == 100
    pace.prefilled(64, 100.0, beside_a_step=False)
    assert pace.tokens(5, 256) == ROW_TOKENS


@pytest.mark.parametrize("first", [15, 32, 256])
def test_the_pace_finds_its_way_out_of_small_steps(first: int) -> None:
    """A step's fixed cost is not taken for its tokens': whatever the first step had, soon they take five decode steps."""
    fixed_s, token_s, rows = 0.09, 0.004, 16
    pace = Pace()
    pace.stepped(rows, fixed_s + rows * token_s)
    tokens = first
    for _ in range(12):
        pace.prefilled(tokens, fixed_s + tokens * token_s, beside_a_step=False)
        tokens = pace.tokens(5, 256)
    taken_s = fixed_s + tokens * token_s
    assert 4.5 < taken_s / pace.step_s <= 5


def test_a_crowd_joins_a_few_at_once(
    make_loop: Callable[..., Loop], endless: Sampling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row decodes and twelve short prompts come: they are computed in one turn, not a row or two at a time."""
    for measured in ("stepped", "prefilled"):  # a busy machine would decide how many are few
        monkeypatch.setattr(Pace, measured, lambda *_, **__: None)
    loop = make_loop(prefill_step_tokens=256)
    loop.submit("first", 40, sampling=endless)
    loop.turn(2 + HOLD_STEPS)
    for number in range(12):
        loop.submit(f"short {number}", 9, sampling=endless)
    loop.turn()
    computed = loop.runner.prefilled_tokens
    loop.turn(4)
    assert loop.runner.prefilled_tokens == computed
    assert all(loop.answers[f"short {number}"].ids for number in range(12))


def test_rows_that_come_one_by_one_join_together(loop: Loop, endless: Sampling) -> None:
    """The first of them joins at once, and those of the next turns with one prefill after it; all lose two turns at most."""
    for number in range(5):
        loop.submit(f"stream {number}", 60, sampling=endless)
    loop.turn(2 + HOLD_STEPS)
    computed = []
    for number in range(6):
        loop.submit(f"comes {number}", 60, sampling=endless)
        before = loop.runner.prefilled_tokens
        loop.turn()
        computed.append(loop.runner.prefilled_tokens - before > 0)
    assert computed == [True, False, False, True, False, False]
    loop.turn(3)
    assert all(loop.answers[f"comes {number}"].ids for number in range(6))


def test_the_error_that_means_memory(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """decode, prefill and remove translate it, so that the loop knows one class only."""
    runner: Any = loop.runner

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("[malloc] Unable to allocate 5 bytes.")

    for name, call in (
        ("decode", runner.decode),
        ("prefill", runner.prefill),
        ("remove", lambda: runner.remove([1], keep=True)),
    ):
        monkeypatch.setattr(_batch(loop), name, fail)
        with pytest.raises(OutOfDeviceMemory):
            call()
    assert isinstance(loop.engine, GenerationLoop)


def test_the_late_half_of_a_burst_decodes_with_the_first(make_loop: Callable[..., Loop], endless: Sampling) -> None:
    """Rows that came during the first prefill step are computed before any row decodes: the steps after it are for all."""
    loop = make_loop(prefill_step_tokens=64, prompt_cache_bytes=0)
    names = [f"{number} long prompt " * 5 for number in range(6)]
    loop.submit(names[0], 3, sampling=endless)
    loop.turn()
    for name in names[1:]:
        loop.submit(name, 3, sampling=endless)
    while not any(answer.ids for answer in loop.answers.values()):
        loop.turn()
    assert [len(answer.ids) for answer in loop.answers.values()] == [1] * 6
    loop.turn()
    assert [len(answer.ids) for answer in loop.answers.values()] == [2] * 6


def test_a_short_prompt_does_not_wait_for_long_ones(make_loop: Callable[..., Loop], endless: Sampling) -> None:
    """It has its first token while most of those that came with it are being computed."""
    loop = make_loop(prefill_step_tokens=64, prompt_cache_bytes=0)
    loop.submit("hi", 60, sampling=endless)
    for number in range(2):
        loop.submit(f"{number} long prompt " * 40, 3, sampling=endless)
    while not loop.answers["hi"].ids:
        loop.turn()
    assert not any(answer.ids for name, answer in loop.answers.items() if name != "hi")


@pytest.mark.parametrize(
    ("ready", "done_tokens", "todo", "most_tokens", "waits"),
    [
        (1, 200, [200] * 15, 4096, True),
        (13, 2600, [25] * 3, 4096, True),  # a few last tokens
        (8, 128, [2000], 4096, False),  # most are ready
        (1, 16, [2000, 2000], 4096, False),  # much longer than its own prompt
        (1, 200, [200] * 15, 1000, False),  # it has waited for long
        (1, 200, [], 4096, False),
    ],
)
def test_what_a_ready_row_waits_for(
    ready: int, done_tokens: int, todo: list[int], most_tokens: int, waits: bool
) -> None:
    """For the rest of its burst, in proportion to its own prompt, and for a bounded number of tokens in all."""
    assert worth_gathering(done_tokens, ready, todo, most_tokens) is waits
