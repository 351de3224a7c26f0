"""Architectures that mlx-lm computes wrongly, or not at all, for rows beside each other, through the engine's process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.parts.tiny_model import make_tiny_architecture
from tasks.messages.engine import EngineConfig, Sampling
from tests.engine_client import EngineClient

if TYPE_CHECKING:
    from pathlib import Path

PROMPTS = ["a", "two words", "a prompt of some more words than the others have", "x" * 70, "Go!", "and the last one"]
ENDLESS = Sampling(temperature=0.0, logit_bias={265: -1000.0}, logprobs=True)


@pytest.mark.parametrize(
    ("name", "batching"),
    [
        ("mamba", "equal"),
        ("gpt_bigcode", "apart"),
        ("gemma2", "padded"),
        ("nemotron-nas", "padded"),
        ("llama4", "apart"),
    ],
)
def test_a_burst_says_what_each_says_alone(name: str, batching: str, tmp_path: Path) -> None:
    """Prompts of many lengths at once, and some that come while they run: tokens and log-probabilities of each request by
    itself; the engine says how it serves the model, and lives on."""
    folder = make_tiny_architecture(tmp_path / "model", name)
    config = EngineConfig(model=name, source=str(folder), prefill_step_tokens=16, prompt_cache_bytes=1 << 24)
    with EngineClient(config) as engine:
        assert engine.ready.batching == batching
        assert bool(engine.ready.batching_why) == (batching != "padded")
        alone = [engine.ask(prompt, 8, sampling=ENDLESS) for prompt in PROMPTS]
        tasks = [engine.submit(prompt, 8, sampling=ENDLESS) for prompt in PROMPTS[:4]]
        engine.tokens(tasks[0], 2)
        tasks += [engine.submit(prompt, 8, sampling=ENDLESS) for prompt in PROMPTS[4:]]
        together = [engine.answer(task_id) for task_id in tasks]
    assert [answer.ids for answer in together] == [answer.ids for answer in alone]
    for one, other in zip(alone, together, strict=True):
        assert [logprob.logprob for logprob in one.logprobs] == pytest.approx(
            [logprob.logprob for logprob in other.logprobs], abs=1e-3
        )
