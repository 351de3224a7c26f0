"""Tokens of texts for an embedding model, by its ``tokenizer.json``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from tasks.engine.embedding.embedder import Row
from tasks.errors import ContextExceeded, InvalidRequest, ModelLoadFailed
from tasks.models.reading import read_object_if_there

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tasks.models.embedding import EmbeddingRecipe


def open_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of the model in this folder, which neither cuts nor pads.

    Raises:
        ModelLoadFailed: there is no ``tokenizer.json``.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelLoadFailed(f"{folder}: has no tokenizer.json; save the tokenizer again with transformers' fast one")
    tokenizer = Tokenizer.from_file(str(path))
    # Files of sentence-transformers' have both in tokenizer.json: long texts would lose their end without a word, and short
    # ones be padded.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def require_known(where: str, ids: Sequence[int], known_tokens: int) -> None:
    """Refuse a token that the model has no vector for, because its tokenizer has more tokens: MLX reads whatever lies there.

    Raises:
        InvalidRequest: there is one.
    """
    last = max(ids)
    if last >= known_tokens:
        raise InvalidRequest(
            f"{where}: has the token {last}, and the model has {known_tokens}: use its own tokens, or take the tokenizer "
            "that the model was trained with"
        )


class TextTokens:
    """A model's tokenizer, its prompts and its context.

    Args:
        folder: the model's.
        recipe: its prompts, and whether it wants lower case.
        context_tokens: the most tokens of a text, with its prompt and the tokenizer's special tokens.
        known_tokens: how many tokens the model has vectors for; ``None`` for all of the tokenizer's.

    Raises:
        ModelLoadFailed: there is no ``tokenizer.json``.
    """

    def __init__(
        self, folder: Path, recipe: EmbeddingRecipe, context_tokens: int, known_tokens: int | None = None
    ) -> None:
        self._tokenizer = open_tokenizer(folder)
        self._recipe = recipe
        self._context_tokens = context_tokens
        self._end = self._missing_end(folder)
        # A vocabulary may have holes: its last id says more than its size.
        self._known_tokens = known_tokens or 1 + max(self._tokenizer.get_vocab().values())

    def rows(self, inputs: Sequence[str | tuple[int, ...]], input_type: str | None, prompt: str | None) -> list[Row]:
        """The inputs' tokens, in their order.

        Raises:
            InvalidRequest: the model has no prompt of this type, or no such token.
            ContextExceeded: an input is too long.
        """
        if prompt is None:
            prompt = self._prompt(input_type)
        unpooled = 0 if self._recipe.include_prompt or not prompt else self._prompt_tokens(prompt)
        texts = iter(self._encode([prompt + item for item in inputs if isinstance(item, str)]))
        rows = [Row(next(texts), unpooled) if isinstance(item, str) else Row(list(item)) for item in inputs]
        for place, row in enumerate(rows):
            self._check(place, row.ids)
        return rows

    def _prompt(self, input_type: str | None) -> str:
        prompts = self._recipe.prompts
        name = input_type or self._recipe.default_prompt
        if input_type is not None and input_type not in prompts:
            known = ", ".join(sorted(prompts)) or "none"
            raise InvalidRequest(
                f"input_type={input_type!r}: the model has no prompt of this name (it has: {known}); leave it out, or add it to "
                "the prompts of the model's entry in the catalogue"
            )
        return prompts.get(name or "", "")

    def _encode(self, texts: list[str]) -> list[list[int]]:
        if self._recipe.lower_case:
            texts = [text.lower() for text in texts]
        found = [list(encoding.ids) for encoding in self._tokenizer.encode_batch(texts)]
        return [[*ids, *self._end] for ids in found]

    def _prompt_tokens(self, prompt: str) -> int:
        """The tokens that stand before the text: a prompt's, without those that the tokenizer adds behind."""
        with_added, alone = self._encode([prompt])[0], self._tokenizer.encode(prompt, add_special_tokens=False).ids
        before = with_added.index(alone[0]) if alone else 0
        return before + len(alone)

    def _check(self, place: int, ids: list[int]) -> None:
        if not ids:
            raise InvalidRequest(f"input[{place}]: has no tokens; give some text")
        if len(ids) > self._context_tokens:
            raise ContextExceeded(
                f"input[{place}]: has {len(ids)} tokens, and the model takes {self._context_tokens}: send shorter pieces"
            )
        require_known(f"input[{place}]", ids, self._known_tokens)

    def _missing_end(self, folder: Path) -> list[int]:
        """The end token, where the model wants one that ``tokenizer.json`` does not add."""
        config = read_object_if_there(folder / "tokenizer_config.json")
        token = config.get("eos_token")
        text = token.get("content") if isinstance(token, dict) else token
        if config.get("add_eos_token") is not True or not isinstance(text, str):
            return []
        end = self._tokenizer.token_to_id(text)
        added = self._tokenizer.encode("a").ids
        return [] if end is None or added[-1:] == [end] else [end]
