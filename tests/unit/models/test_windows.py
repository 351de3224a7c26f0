"""Windows that mlx-lm does not compute are named, and no others."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from mlx_lm.utils import _get_classes

from tasks.models.windows import ALWAYS, FIELD, IF_ASKED, ignored_window

MISTRAL = {"model_type": "mistral", "sliding_window": 4096}
QWEN = {"model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": True}


@pytest.mark.parametrize(
    ("config", "context_tokens", "window"),
    [
        (MISTRAL, 32768, 4096),
        (MISTRAL, 4096, None),
        ({**MISTRAL, "sliding_window": None}, 32768, None),
        ({**MISTRAL, "sliding_window": 0}, 32768, None),
        ({"model_type": "mistral"}, 32768, None),
        ({"text_config": MISTRAL}, 32768, 4096),
        (QWEN, 32768, 4096),
        ({**QWEN, "use_sliding_window": False}, 32768, None),
        ({"model_type": "gemma3_text", "sliding_window": 512}, 32768, None),
    ],
)
def test_what_is_named(config: dict[str, Any], context_tokens: int, window: int | None) -> None:
    """Only where a sequence can be longer, and where the files ask for it."""
    assert ignored_window(config, context_tokens) == window


@pytest.mark.parametrize("kind", sorted(ALWAYS | IF_ASKED))
def test_mlx_lm_does_not_compute_it(kind: str) -> None:
    """Its module has no such field; llama's, which is mistral's, goes by a list of layers that no such file has."""
    _, arguments = _get_classes({"model_type": kind})
    known = {field.name for field in fields(arguments)}
    assert FIELD not in known or (kind == "mistral" and "layer_types" in known)
