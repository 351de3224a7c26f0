"""Attention windows that a model's files ask for and that mlx-lm 0.32.2 does not compute: its code attends to all tokens.

Up to the window's length the answers are the same. Beyond, the model sees more than it was trained with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.models.reading import text_config, whole

if TYPE_CHECKING:
    from collections.abc import Mapping

FIELD = "sliding_window"
#: Types that have the window wherever the field is a number, and those that want ``use_sliding_window`` too.
ALWAYS = frozenset({"gemma2", "mistral", "mixtral", "phi3", "starcoder2"})
IF_ASKED = frozenset({"qwen2", "qwen2_moe", "qwen3", "qwen3_moe"})


def ignored_window(config: Mapping[str, Any], context_tokens: int) -> int | None:
    """The window's tokens; ``None`` where there is none, where mlx-lm computes it, or where no sequence is longer."""
    text = text_config(dict(config))
    kind, window = text.get("model_type"), whole(text.get(FIELD))
    asked = kind in ALWAYS or (kind in IF_ASKED and text.get("use_sliding_window") is True)
    return window if asked and window is not None and window < context_tokens else None
