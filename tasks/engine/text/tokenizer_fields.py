"""Fields of tokenizer_config.json that transformers fails with, as it reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.models.context import UNBOUNDED_TOKENS
from tasks.models.reading import read_object_if_there, whole
from tasks.models.special_tokens import CONFIG

if TYPE_CHECKING:
    from pathlib import Path


def corrected_fields(folder: Path) -> dict[str, Any]:
    """Tokens that are objects without a type, and a bound that is written as text."""
    from tokenizers import AddedToken

    found: dict[str, Any] = {}
    for name, value in read_object_if_there(folder / CONFIG).items():
        if name.endswith("_token") and isinstance(value, dict) and "__type" not in value and "content" in value:
            found[name] = AddedToken(value["content"], special=True)
        elif name == "additional_special_tokens" and isinstance(value, list):
            texts = [entry.get("content") if isinstance(entry, dict) else entry for entry in value]
            if texts != value:
                found[name] = texts
        elif name == "model_max_length" and isinstance(value, str):
            found[name] = whole(value) or UNBOUNDED_TOKENS
    return found
