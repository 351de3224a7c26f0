"""Any other tokenizer: only its own ``decode`` knows what its tokens say side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.engine.text.vocabulary import special_tokens

if TYPE_CHECKING:
    from tasks.engine.text.vocabulary import Decoder, HuggingFace

_REPLACEMENT = "\ufffd"
#: A character has at most 4 bytes, so more tokens than this in a row are garbage (or one U+FFFD after the other).
_MOST_PENDING = 32
#: Tokens that a window decoder decodes again at each step; it cuts its window when it grows beyond.
_WINDOW = 16


class WindowVocabulary:
    """A vocabulary whose decoders decode the last few tokens together."""

    def __init__(self, hf: HuggingFace, silent: frozenset[int]) -> None:
        self.hf = hf
        self.silent = silent
        self.special = special_tokens(hf)

    def decoder(self) -> Decoder:
        """See :class:`tasks.engine.text.vocabulary.Vocabulary`."""
        return _WindowDecoder(self)

    def decode(self, ids: list[int]) -> str:
        """Return the text of these tokens together."""
        # Cleaning takes back spaces that were released before the next token was known.
        return self.hf.decode(ids, clean_up_tokenization_spaces=False)

    def text(self, token_id: int) -> str:
        """See :class:`tasks.engine.text.vocabulary.Vocabulary`."""
        return self.decode([token_id])


class _WindowDecoder:
    """Decodes the last few tokens again at each step and releases what is new.

    A window starts where a character starts: a decoder may turn a whole run of byte tokens into U+FFFD if its first is
    cut off. ``_clean`` is such a place, the latest.
    """

    __slots__ = ("_clean", "_released", "_vocabulary", "_window")

    def __init__(self, vocabulary: WindowVocabulary) -> None:
        self._vocabulary = vocabulary
        self._window: list[int] = []
        self._clean = 0
        self._released = 0

    def push(self, token_id: int) -> str:
        if token_id in self._vocabulary.silent:
            return ""
        self._window.append(token_id)
        text = self._vocabulary.decode(self._window)
        if not text.endswith(_REPLACEMENT) or len(self._window) - self._clean > _MOST_PENDING:
            return self._release_all(text)
        return self._release(text, len(text.rstrip(_REPLACEMENT)))

    def finish(self) -> str:
        text = self._vocabulary.decode(self._window)
        return self._release(text, len(text))

    def cut(self) -> str:
        if self._clean == len(self._window):
            return ""
        text = self.finish()
        self._window.clear()
        self._clean = self._released = 0
        return text

    def _release(self, text: str, end: int) -> str:
        released, self._released = text[self._released : end], max(self._released, end)
        return released

    def _release_all(self, text: str) -> str:
        released = self._release(text, len(text))
        if len(self._window) > _WINDOW:
            del self._window[: self._clean]
            self._released = len(self._vocabulary.decode(self._window))
        self._clean = len(self._window)
        return released
