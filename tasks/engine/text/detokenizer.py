"""From token ids to text, one token at a time, for every kind of tokenizer that mlx-lm serves."""

from __future__ import annotations

import codecs
import json
import re
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

from tasks.engine.text.stop_tokens import SpecialTokens

if TYPE_CHECKING:
    from mlx_lm.tokenizer_utils import TokenizerWrapper

_REPLACEMENT = "\ufffd"
#: A character has at most 4 bytes, so more tokens than this in a row are garbage (or one U+FFFD after the other).
_MOST_PENDING = 32
#: Tokens that a window decoder decodes again at each step; it cuts its window when it grows beyond.
_WINDOW = 16


def token_text(tokenizer: TokenizerWrapper, token_id: int) -> str:
    """One token alone, as text for people: part of a character reads U+FFFD, a special token its name."""
    return vocabulary_of(tokenizer).text(token_id)


class Decoder(Protocol):
    """Token ids to text without stop strings, for one request."""

    def push(self, token_id: int) -> str:
        """Take a token, return the text that it completes."""
        ...

    def finish(self) -> str:
        """Return what is left of an unfinished character."""
        ...

    def cut(self) -> str:
        """Return what is left of an unfinished character; what comes next is not a part of it."""
        ...


class Vocabulary(Protocol):
    """What the decoders of one tokenizer share; ``special`` are the tokens without text."""

    special: SpecialTokens

    def decoder(self) -> Decoder:
        """A decoder for one request."""
        ...

    def text(self, token_id: int) -> str:
        """One token alone, for people."""
        ...


_vocabularies: WeakKeyDictionary[TokenizerWrapper, Vocabulary] = WeakKeyDictionary()


def vocabulary_of(tokenizer: TokenizerWrapper) -> Vocabulary:
    """What all decoders of this tokenizer share; made once."""
    found = _vocabularies.get(tokenizer)
    if found is None:
        found = _vocabularies[tokenizer] = _make_vocabulary(tokenizer)
    return found


def streamed_text(tokenizer: TokenizerWrapper, ids: list[int]) -> str:
    """All text of these tokens, as a request's decoder makes it, one token after the other."""
    return _streamed(vocabulary_of(tokenizer), ids)


def _streamed(vocabulary: Vocabulary, ids: list[int]) -> str:
    decoder = vocabulary.decoder()
    return "".join(map(decoder.push, ids)) + decoder.finish()


def _make_vocabulary(tokenizer: TokenizerWrapper) -> Vocabulary:
    # The wrapper would keep itself alive as the value of a weak dictionary that it is the key of.
    hf = tokenizer._tokenizer
    silent = frozenset(tokenizer.eos_token_ids) | _special_ids(hf)
    window = _WindowVocabulary(hf, silent)
    found = _byte_vocabulary(hf, silent)
    # A class of transformers may do more than its decoder says, such as to put line ends in the place of a mark.
    return window if found is None or not _agree(found, window) else found


def _agree(found: ByteVocabulary, window: _WindowVocabulary) -> bool:
    """Whether both say the same of text with spaces, line ends and marks."""
    tried = (window.hf.encode(text, add_special_tokens=False) for text in (" a b\n c", "a <n>\n\u2581b"))
    spoken = ([token_id for token_id in ids if token_id not in window.silent] for ids in tried)
    return all(_streamed(found, ids) == window.decode(ids) for ids in spoken)


def _byte_vocabulary(hf: _HuggingFace, silent: frozenset[int]) -> ByteVocabulary | None:
    """A vocabulary by bytes, where the tokenizer's decoder is of a kind that allows it."""
    match _decoder_of(hf):
        case {"type": "ByteLevel"}:
            return ByteVocabulary(_BytePairPieces(hf, silent), trim=False)
        case {"type": "Sequence", "decoders": [*steps]} if steps == _SENTENCEPIECE:
            return ByteVocabulary(_SentencePieces(hf, silent), trim=False)
        case {"type": "Sequence", "decoders": [*steps]} if steps == [*_SENTENCEPIECE, _STRIP]:
            return ByteVocabulary(_SentencePieces(hf, silent), trim=True)
    return None


def _decoder_of(hf: _HuggingFace) -> Any:
    """The tokenizer's decoder as tokenizer.json describes it; ``None`` where there is none."""
    decoder = getattr(getattr(hf, "backend_tokenizer", None), "decoder", None)
    return None if decoder is None else json.loads(decoder.__getstate__())


#: How tokenizer.json describes SentencePiece's decoder, and the step that drops the space before a text.
_SENTENCEPIECE = [
    {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
    {"type": "ByteFallback"},
    {"type": "Fuse"},
]
_STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}


def _special_tokens(hf: _HuggingFace) -> SpecialTokens:
    return SpecialTokens({hf.convert_ids_to_tokens(token_id) or "": token_id for token_id in _special_ids(hf)})


def _special_ids(hf: _HuggingFace) -> frozenset[int]:
    try:
        added = hf.added_tokens_decoder
    except NotImplementedError:  # mistral-common's tokenizers, whose special ids are complete
        added = {}
    return frozenset(hf.all_special_ids).union(token_id for token_id, token in added.items() if token.special)


class _AddedToken(Protocol):
    special: bool


class _HuggingFace(Protocol):
    """The part of Hugging Face's tokenizer that is used here."""

    all_special_ids: list[int]
    added_tokens_decoder: dict[int, _AddedToken]

    def convert_ids_to_tokens(self, ids: int) -> str | None: ...

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...

    def decode(self, ids: list[int], *, clean_up_tokenization_spaces: bool) -> str: ...


class _Pieces(dict[int, bytes]):
    """The bytes of each token, filled as tokens are met: a whole vocabulary would take a second to start with."""

    def __init__(self, hf: _HuggingFace, silent: frozenset[int]) -> None:
        super().__init__()
        self.hf = hf
        self.silent = silent

    def __missing__(self, token_id: int) -> bytes:
        # A model's output may be wider than its vocabulary; ids beyond it have no token, here as in decode().
        token = None if token_id in self.silent else self.hf.convert_ids_to_tokens(token_id)
        piece = self[token_id] = self.encode(token or "")
        return piece

    def encode(self, token: str) -> bytes:
        """The bytes that a token of the vocabulary stands for."""
        raise NotImplementedError


def _byte_level_alphabet() -> dict[str, int]:
    """The bytes that GPT-2's byte-level alphabet stands for, by character (``bytes_to_unicode`` in its encoder.py)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTE_LEVEL = _byte_level_alphabet()


class _BytePairPieces(_Pieces):
    """Byte-level tokens: each character is a byte. An added token with other characters is plain text."""

    def encode(self, token: str) -> bytes:
        try:
            return bytes(_BYTE_LEVEL[char] for char in token)
        except KeyError:
            return token.encode()


#: A byte's token. Vocabularies have other entries that begin like it, which are text.
_BYTE = re.compile("<0x([0-9A-Fa-f]{2})>")


class _SentencePieces(_Pieces):
    """SentencePiece tokens: U+2581 is a space, ``<0xE2>`` a byte."""

    def encode(self, token: str) -> bytes:
        if byte := _BYTE.fullmatch(token):
            return bytes([int(byte[1], 16)])
        return token.replace("\u2581", " ").encode()


class ByteVocabulary:
    """A vocabulary whose tokens are bytes, wherever they stand; ``trim`` drops one space before the text."""

    def __init__(self, pieces: _Pieces, *, trim: bool) -> None:
        self.pieces = pieces
        self.trim = trim
        self.special = _special_tokens(pieces.hf)

    def decoder(self) -> Decoder:
        """See :class:`Vocabulary`."""
        return _ByteDecoder(self)

    def text(self, token_id: int) -> str:
        """See :class:`Vocabulary`."""
        if token_id in self.pieces.silent:
            return self.pieces.hf.convert_ids_to_tokens(token_id) or ""
        return self.pieces[token_id].decode(errors="replace")


class _ByteDecoder:
    """Joins the tokens' bytes and holds back an unfinished character."""

    __slots__ = ("_pieces", "_trim", "_utf8")

    def __init__(self, vocabulary: ByteVocabulary) -> None:
        self._pieces = vocabulary.pieces
        self._trim = vocabulary.trim
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        return self._trimmed(self._utf8.decode(self._pieces[token_id]))

    def finish(self) -> str:
        return self._trimmed(self._utf8.decode(b"", final=True))

    def cut(self) -> str:
        return self.finish()

    def _trimmed(self, text: str) -> str:
        if self._trim and text:
            self._trim = False
            return text.removeprefix(" ")
        return text


class _WindowVocabulary:
    """Any other tokenizer: only its own ``decode`` knows what its tokens say side by side."""

    def __init__(self, hf: _HuggingFace, silent: frozenset[int]) -> None:
        self.hf = hf
        self.silent = silent
        self.special = _special_tokens(hf)

    def decoder(self) -> Decoder:
        return _WindowDecoder(self)

    def decode(self, ids: list[int]) -> str:
        # Cleaning takes back spaces that were released before the next token was known.
        return self.hf.decode(ids, clean_up_tokenization_spaces=False)

    def text(self, token_id: int) -> str:
        return self.decode([token_id])


class _WindowDecoder:
    """Decodes the last few tokens again at each step and releases what is new.

    A window starts where a character starts: a decoder may turn a whole run of byte tokens into U+FFFD if its first is
    cut off. ``_clean`` is such a place, the latest.
    """

    __slots__ = ("_clean", "_released", "_vocabulary", "_window")

    def __init__(self, vocabulary: _WindowVocabulary) -> None:
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
