from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.models.names import bits_from_name, parameters_from_name
from tasks.models.routing import tier_of
from worker_config.model_entry import ModelEntry
from worker_config.tiers import TIERS

# Real names of mlx-community, with the billions of parameters that their names or their families say, and their tiers.
NAMES = [
    ("SmolLM-135M-Instruct-4bit", 0.135, "<3B"),
    ("lille-130m-instruct-bf16", 0.13, "<3B"),
    ("OpenELM-270M-Instruct", 0.27, "<3B"),
    ("gemma-3-270m-it-4bit", 0.27, "<3B"),
    ("ERNIE-4.5-0.3B-PT-bf16-ft", 0.3, "<3B"),
    ("Qwen1.5-0.5B-Chat-4bit", 0.5, "<3B"),
    ("Qwen2.5-0.5B-Instruct-4bit", 0.5, "<3B"),
    ("Qwen3-0.6B-4bit", 0.6, "<3B"),
    ("Llama-3.2-1B-Instruct-4bit", 1, "<3B"),
    ("gemma-3-1b-it-qat-4bit", 1, "<3B"),
    ("LFM2-1.2B-4bit", 1.2, "<3B"),
    ("exaone-4.0-1.2b-4bit", 1.2, "<3B"),
    ("DeepSeek-R1-Distill-Qwen-1.5B-4bit", 1.5, "<3B"),
    ("Qwen3-1.7B-4bit", 1.7, "<3B"),
    ("quantized-gemma-2b-it", 2, "<3B"),
    ("gemma-2-2b-it-4bit", 2, "<3B"),
    ("bitnet-b1.58-2B-4T-4bit", 2, "<3B"),
    ("granite-3.3-2b-instruct-4bit", 2, "<3B"),
    ("phi-2-hf-4bit-mlx", 2.8, "3-7B"),
    ("LFM2-2.6B-4bit", 2.6, "3-7B"),
    ("Llama-3.2-3B-Instruct-4bit", 3, "3-7B"),
    ("SmolLM3-3B-4bit", 3, "3-7B"),
    ("AI21-Jamba-Reasoning-3B-4bit", 3, "3-7B"),
    ("Phi-3-mini-128k-instruct-4bit", 3.8, "3-7B"),
    ("Phi-3.5-mini-instruct-4bit", 3.8, "3-7B"),
    ("Phi-4-mini-instruct-4bit", 3.8, "3-7B"),
    ("Qwen3-4B-Instruct-2507-4bit", 4, "3-7B"),
    ("gemma-3-4b-it-8bit", 4, "3-7B"),
    ("gemma-3n-E2B-it-lm-4bit", 5.4, "3-7B"),
    ("Mistral-7B-Instruct-v0.3-4bit", 7, "7-13B"),
    ("Qwen2.5-7B-Instruct-4bit", 7, "7-13B"),
    ("OLMo-2-1124-7B-Instruct-4bit", 7, "7-13B"),
    ("OLMoE-1B-7B-0125-Instruct-4bit", 7, "7-13B"),
    ("c4ai-command-r7b-12-2024-4bit", 7, "7-13B"),
    ("Granite-4.0-H-Tiny-4bit-DWQ", 6.9, "7-13B"),
    ("gemma-3n-E4B-it-lm-4bit", 7.8, "7-13B"),
    ("Meta-Llama-3.1-8B-Instruct-4bit", 8, "7-13B"),
    ("LFM2-8B-A1B-3bit-MLX", 8, "7-13B"),
    ("Llama-3.1-Nemotron-8B-UltraLong-1M-Instruct-4bit", 8, "7-13B"),
    ("Josiefied-DeepSeek-R1-0528-Qwen3-8B-abliterated-v1-4bit", 8, "7-13B"),
    ("GLM-4-9B-0414-4bit", 9, "7-13B"),
    ("gemma-3-12b-it-4bit", 12, "7-13B"),
    ("Mistral-Nemo-Instruct-2407-4bit", 12.2, "7-13B"),
    ("CodeLlama-13b-Instruct-hf-4bit-MLX", 13, "13-27B"),
    ("Qwen1.5-MoE-A2.7B-Chat-4bit", 14.3, "13-27B"),
    ("phi-4-4bit", 14.7, "13-27B"),
    ("Qwen3-14B-4bit", 14, "13-27B"),
    ("Baichuan-M1-14B-Instruct-4bit-ft", 14, "13-27B"),
    ("Ling-mini-2.0-2bit-DWQ", 16.3, "13-27B"),
    ("gpt-oss-20b-MXFP4-Q8", 20, "13-27B"),
    ("Devstral-Small-2507-4bit", 23.6, "13-27B"),
    ("Mistral-Small-3.2-24B-Instruct-2506-4bit", 24, "13-27B"),
    ("gemma-4-26b-a4b-it-4bit", 26, "13-27B"),
    ("gemma-3-27b-it-4bit", 27, "13-27B"),
    ("Qwen3-30B-A3B-4bit", 30, "30B+"),
    ("Qwen3-30B-A3B-4bit-DWQ-10072025", 30, "30B+"),
    ("GLM-4.7-Flash-4bit", 30, "30B+"),
    ("Qwen3-32B-4bit", 32, "30B+"),
    ("c4ai-command-r-08-2024-4bit", 32.3, "30B+"),
    ("c4ai-command-r-v01-4bit", 35, "30B+"),
    ("Phi-3.5-MoE-instruct-4bit", 41.9, "30B+"),
    ("Mixtral-8x7B-Instruct-v0.1-4bit", 46.7, "30B+"),
    ("Llama-3.3-70B-Instruct-4bit", 70, "30B+"),
    ("Qwen3-Coder-Next-4bit", 79.7, "30B+"),
    ("Hunyuan-A13B-Instruct-4bit", 80.4, "30B+"),
    ("c4ai-command-r-plus-4bit", 104, "30B+"),
    ("GLM-4.5-Air-8bit", 106, "30B+"),
    ("Llama-4-Scout-17B-16E-Instruct-4bit", 109, "30B+"),
    ("gpt-oss-120b-MXFP4-Q8", 120, "30B+"),
    ("Mixtral-8x22B-Instruct-v0.1-4bit", 141, "30B+"),
    ("MiniMax-M2.5-5bit", 229, "30B+"),
    ("Qwen3-235B-A22B-4bit", 235, "30B+"),
    ("DeepSeek-R1-4bit", 671, "30B+"),
    ("Kimi-K2-Thinking", 1026, "30B+"),
]

# The same families in more bits: the weights move them up.
HEAVY = [
    ("Qwen3-1.7B-bf16", "<3B"),
    ("Llama-3.2-3B-Instruct-bf16", "3-7B"),
    ("Qwen3-4B-Instruct-2507-bf16", "7-13B"),
    ("gemma-3n-E4B-it-lm-bf16", "13-27B"),
    ("Meta-Llama-3.1-8B-Instruct-8bit", "7-13B"),
    ("Qwen2.5-7B-Instruct-bf16", "13-27B"),
    ("Meta-Llama-3.1-8B-Instruct-bf16", "13-27B"),
    ("gemma-3-27b-it-8bit", "30B+"),
    ("gemma-3-27b-it-bf16", "30B+"),
]


@pytest.mark.parametrize(("name", "billions", "tier"), NAMES, ids=[name for name, *_ in NAMES])
def test_a_real_name_tells_its_size_and_tier(name: str, billions: float, tier: str) -> None:
    """Parameters in all, and the tier that follows, for names as they stand on the hub."""
    hub_id = f"mlx-community/{name}"
    assert parameters_from_name(hub_id) == pytest.approx(billions)
    assert tier_of(ModelEntry(name=hub_id, kind="hub", source=hub_id)).name == tier


@pytest.mark.parametrize(("name", "tier"), HEAVY)
def test_more_bits_move_a_model_up(name: str, tier: str) -> None:
    """An 8B in bf16 is not a 16 GB machine's job."""
    hub_id = f"mlx-community/{name}"
    assert tier_of(ModelEntry(name=hub_id, kind="hub", source=hub_id)).name == tier


def test_enough_names_are_tested() -> None:
    """At least forty different ones, of every tier."""
    assert len({name for name, *_ in NAMES}) >= 40
    assert {tier for *_, tier in NAMES} == {tier.name for tier in TIERS}


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("stabilityai/stablelm-2-zephyr-1_6b", 1.6),
        ("internlm/internlm2_5-7b-chat", 7),
        ("mlabonne/Beyonder-4x7B-v2", 4 * 7 * 0.83),
        ("ibm-granite/granite-3.1-1b-a400m-instruct", 1),
        ("acme/New-E3B", 6),
        ("LiquidAI/LFM2-8B-A1B", 8),
        ("/models/Llama-3.1-8B/", 8),
        ("/hub/models--acme--Tiny-2B/snapshots/0123456789abcdef0123456789abcdef0123457b", 2),
        ("nvidia/Mistral-4bit", None),
        ("acme/assistant-v2-128k-4bit", None),
        ("acme/model-a3b", None),
        ("acme/chat-13bit", None),
        ("", None),
    ],
)
def test_traps_in_names(name: str, billions: float | None) -> None:
    """Underscores for points, active and effective sizes, commits that end like a size, names that tell none."""
    found = parameters_from_name(name)
    assert found == (None if billions is None else pytest.approx(billions))


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("Qwen3-8B-4bit", 4.5),
        ("Qwen3-8B-8-bit", 8.5),
        ("Falcon3-10B-1.58bit", 2.08),
        ("Qwen3-30B-A3B-4bit-DWQ", 4.5),
        ("gpt-oss-20b-MXFP4-Q8", 4.5),
        ("openai/gpt-oss-120b", 4.5),
        ("Kimi-K2.6-mlx-DQ3_K_M-q8", 8.5),
        ("Kimi-K2.5", 4.5),
        ("GLM-5-8bit-MXFP8", 8.5),
        ("Llama-3-8B-q4", 4.5),
        ("Llama-3-8B-Q6_K", 6.5),
        ("Qwen3-8B-FP8", 8.5),
        ("Qwen3-8B-bf16", 16),
        ("SmolLM2-135M-fp32", 32),
        ("meta-llama/Llama-3.1-8B-Instruct", None),
    ],
)
def test_a_name_tells_its_bits(name: str, bits: float | None) -> None:
    """Bits per parameter with their scales; what is published quantised needs no word for it."""
    found = bits_from_name(name)
    assert found == (None if bits is None else pytest.approx(bits))


@given(st.text(max_size=256))
def test_any_name_is_read(name: str) -> None:
    """Whatever a producer sends, a size is positive or unknown, and so are bits."""
    assert (parameters_from_name(name) or 0) >= 0
    assert (bits_from_name(name) or 0) >= 0


@given(st.integers(1, 999), st.sampled_from(["", "-4bit", "-8bit", "-bf16", "-A3B-4bit", "-128k-2407-v0.3-4bit"]))
def test_a_plain_size_is_never_misread(billions: int, suffix: str) -> None:
    """The number before the B, whatever stands after it."""
    assert parameters_from_name(f"acme/Nova-{billions}B{suffix}") == billions
