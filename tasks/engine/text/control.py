"""The tokens of a vocabulary that are not made of text: control tokens, and others that were added to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlx_lm.tokenizer_utils import TokenizerWrapper


def added_tokens(tokenizer: TokenizerWrapper) -> dict[str, int]:
    """The ids of the tokens that the tokenizer looks for in text before it cuts the rest into pieces, by their text."""
    hf: Any = tokenizer._tokenizer
    try:
        added: dict[int, Any] = hf.added_tokens_decoder
    except NotImplementedError:  # mistral-common's tokenizers, whose special ids are complete
        return {str(hf.convert_ids_to_tokens(token_id)): token_id for token_id in hf.all_special_ids}
    return {token.content: token_id for token_id, token in added.items()}
