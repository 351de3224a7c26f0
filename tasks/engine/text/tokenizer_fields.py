"""Fields of a tokenizer's files that transformers fails with, as it reads them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tasks.messages.encoding import to_json
from tasks.models.context import UNBOUNDED_TOKENS
from tasks.models.reading import ModelFilesUnreadable, read_object_if_there, whole
from tasks.models.special_tokens import CONFIG, SPECIAL_TOKENS

if TYPE_CHECKING:
    from pathlib import Path

_ADDITIONAL = "additional_special_tokens"


def corrected_fields(folder: Path) -> dict[str, Any]:
    """Tokens that are objects without a type, and a bound that is written as text."""
    from tokenizers import AddedToken

    found: dict[str, Any] = {}
    for name, value in read_object_if_there(folder / CONFIG).items():
        if name.endswith("_token") and isinstance(value, dict) and "__type" not in value and "content" in value:
            found[name] = AddedToken(value["content"], special=True)
        elif name == _ADDITIONAL and isinstance(value, list):
            texts = [entry.get("content") if isinstance(entry, dict) else entry for entry in value]
            if texts != value:
                found[name] = texts
        elif name == "model_max_length" and isinstance(value, str):
            found[name] = whole(value) or UNBOUNDED_TOKENS
    return found


def without_empty_tokens(folder: Path) -> dict[Path, str]:
    """The texts of those of the tokenizer's files that name an empty text as a token, without it.

    The first conversions of LLaMA for transformers have ``"bos_token": ""``, and so have models that were trained from them.
    """
    found: dict[Path, str] = {}
    for path in (folder / CONFIG, folder / SPECIAL_TOKENS):
        with suppress(ModelFilesUnreadable):  # loading will say so
            described = read_object_if_there(path)
            kept = {name: value for name, value in described.items() if not (name.endswith("_token") and _empty(value))}
            if isinstance(more := kept.get(_ADDITIONAL), list):
                kept[_ADDITIONAL] = [token for token in more if not _empty(token)]
            if kept != described:
                found[path] = to_json(kept)
    return found


def _empty(token: Any) -> bool:
    return (token.get("content") if isinstance(token, dict) else token) == ""
