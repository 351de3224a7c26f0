"""The KV cache by the configuration, beside what mlx-lm makes of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.models.memory import unloaded
from benchmarks.models.tiny import architectures, left_out, variants
from tasks.messages.memory import KvSize, KvWindow
from tasks.models.kv_cache import kv_size

pytestmark = pytest.mark.xdist_group("mlx")

#: mlx-lm computes these on a GPU alone, or not without another package, or keeps a cache of its own kind.
NOT_MEASURED = frozenset({"bitnet", "olmo", "deepseek_v41", *left_out()})
MODELS = [name for name in (*architectures(), *variants()) if name not in NOT_MEASURED]


@pytest.mark.parametrize("name", MODELS)
def test_an_estimate_is_what_mlx_lm_makes(name: str) -> None:
    """Within five percent for requests of 4,096 and 32,768 tokens, for every kind of model that mlx-lm loads."""
    from tasks.engine.model.measure import measure_cache

    model, described = unloaded(name)
    measured, estimate = measure_cache(model), kv_size(described)
    assert estimate is not None
    for tokens in (4096, 32768):
        assert estimate.row_bytes(tokens) == pytest.approx(measured.row_bytes(tokens), rel=0.05), tokens


@pytest.mark.parametrize(
    "name", ["llama", "gemma3_text", "gpt_oss", "deepseek_v3", "mamba2", "granitemoehybrid", "gemma4_text"]
)
@pytest.mark.parametrize("tokens", [300, 4096])
def test_what_is_measured_is_what_a_batch_holds(name: str, tokens: int) -> None:
    """Two rows side by side, once their prompt is in and they have begun to answer, by the shapes of their arrays."""
    import mlx.core as mx
    from mlx_lm.models.cache import make_prompt_cache

    from tasks.engine.model.measure import measure_cache

    model, _ = unloaded(name)
    cache = [layer.merge([layer, layer]) for layer in make_prompt_cache(model)]
    for count in (tokens - 2, 1, 1):
        model(mx.zeros((2, count), mx.int32), cache=cache)
    held = sum(layer.nbytes for layer in cache)
    assert 2 * measure_cache(model).row_bytes(tokens) == pytest.approx(held, rel=0.05)


GEMMA_3_27B = {
    "model_type": "gemma3",
    "text_config": {
        "model_type": "gemma3_text", "hidden_size": 5376, "num_hidden_layers": 62, "num_attention_heads": 32,
        "num_key_value_heads": 16, "head_dim": 128, "sliding_window": 1024,
    },
}  # fmt: skip
GEMMA_3_4B = {
    "model_type": "gemma3",
    "text_config": {
        "model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34,
        "sliding_window": 1024,
    },
}  # fmt: skip
GPT_OSS_20B = {
    "model_type": "gpt_oss", "hidden_size": 2880, "num_hidden_layers": 24, "num_attention_heads": 64,
    "num_key_value_heads": 8, "head_dim": 64, "sliding_window": 128,
    "layer_types": ["sliding_attention", "full_attention"] * 12,
}  # fmt: skip
DEEPSEEK_V2_LITE = {
    "model_type": "deepseek_v2", "num_hidden_layers": 27, "num_attention_heads": 16, "kv_lora_rank": 512,
    "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "hidden_size": 2048,
}  # fmt: skip
LLAMA_8B = {
    "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8,
}  # fmt: skip


@pytest.mark.parametrize(
    ("published", "size"),
    [
        (LLAMA_8B, KvSize(bytes_per_token=32 * 8 * 128 * 2 * 2)),
        ({**LLAMA_8B, "model_type": "mistral", "sliding_window": 4096}, KvSize(bytes_per_token=32 * 8 * 128 * 2 * 2)),
        (GEMMA_3_27B, KvSize(bytes_per_token=81_920, windows=(KvWindow(1024, 425_984),))),
        (GEMMA_3_4B, KvSize(bytes_per_token=20_480, windows=(KvWindow(1024, 118_784),))),
        (GPT_OSS_20B, KvSize(bytes_per_token=24_576, windows=(KvWindow(128, 24_576),))),
        (DEEPSEEK_V2_LITE, KvSize(bytes_per_token=276_480)),
        ({**DEEPSEEK_V2_LITE, "model_type": "deepseek_v3"}, KvSize(bytes_per_token=27 * 576 * 2)),
        ({"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64}, KvSize(bytes_per_token=2 * 4 * 16 * 2 * 2)),
        ({"model_type": "mamba"}, None),
        ({"model_type": "deepseek_v3", "num_hidden_layers": 5}, None),
        ({"num_hidden_layers": 10**12, "num_attention_heads": 4, "hidden_size": 64}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_the_cache_of_known_models(published: dict[str, Any], size: KvSize | None) -> None:
    """At their published dimensions; where a dimension is missing nothing is made up."""
    assert kv_size(published) == size


def test_a_long_request_to_a_model_with_windows_is_counted_as_it_is() -> None:
    """32,768 tokens of Gemma 3 27B take 3.1 GB; were every layer to keep every token, 16.6."""
    size = kv_size(GEMMA_3_27B)
    assert size is not None
    assert size.row_bytes(32768) == 32768 * 81_920 + 1024 * 425_984
    assert size.row_bytes(100) < size.row_bytes(1000) < size.row_bytes(4096)


@given(tokens=st.integers(1, 10**6), more=st.integers(0, 10**4))
def test_a_longer_row_never_takes_less(tokens: int, more: int) -> None:
    """And wider values never do."""
    size = KvSize(
        bytes_per_token=3, bytes_per_row=5, wide_bytes_per_row=7, windows=(KvWindow(1000, 2), KvWindow(64, 9))
    )
    assert size.row_bytes(tokens) <= size.row_bytes(tokens + more)
    assert size.row_bytes(tokens) < size.times(2).row_bytes(tokens) < 2 * size.row_bytes(tokens)
