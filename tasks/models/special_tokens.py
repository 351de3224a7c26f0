"""The token that ends an answer by a tokenizer's files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.models.reading import read_object_if_there

if TYPE_CHECKING:
    from pathlib import Path

CONFIG, SPECIAL_TOKENS = "tokenizer_config.json", "special_tokens_map.json"


def read_end_token(folder: Path) -> tuple[str, str] | None:
    """The token's text and the file that has it; ``None`` where none does.

    As transformers 5 has it: the older of the two files counts where tokenizer_config.json does not list the added tokens, and
    where it names no end token.

    Raises:
        ModelFilesUnreadable: a file is damaged.
    """
    config, older = read_object_if_there(folder / CONFIG), read_object_if_there(folder / SPECIAL_TOKENS)
    places = [(config, CONFIG), (older, SPECIAL_TOKENS)]
    found = (
        (_text(place.get("eos_token")), file)
        for place, file in places[:: 1 if "added_tokens_decoder" in config else -1]
    )
    return next(((text, file) for text, file in found if text), None)


def _text(token: Any) -> str | None:
    """A token is a text, or an object that has it."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None
