"""Vocabularies whose tokens are bytes, wherever they stand: byte-level BPE and SentencePiece with byte fallback."""

from __future__ import annotations

import codecs
import json
import re
from typing import TYPE_CHECKING, Any

from tasks.engine.text.vocabulary import special_tokens

if TYPE_CHECKING:
    from tasks.engine.text.vocabulary import Decoder, HuggingFace


def byte_vocabulary(hf: HuggingFace, silent: frozenset[int]) -> ByteVocabulary | None:
    """A vocabulary by bytes, where the tokenizer's decoder is of a kind that allows it."""
    match _decoder_of(hf):
        case {"type": "ByteLevel"}:
            return ByteVocabulary(_BytePairPieces(hf, silent), trim=False)
        case {"type": "Sequence", "decoders": [*steps]} if steps == _SENTENCEPIECE:
            return ByteVocabulary(_SentencePieces(hf, silent), trim=False)
        case {"type": "Sequence", "decoders": [*steps]} if steps == [*_SENTENCEPIECE, _STRIP]:
            return ByteVocabulary(_SentencePieces(hf, silent), trim=True)
    return None


def _decoder_of(hf: HuggingFace) -> Any:
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


class _Pieces(dict[int, bytes]):
    """The bytes of each token, filled as tokens are met: a whole vocabulary would take a second to start with."""

    def __init__(self, hf: HuggingFace, silent: frozenset[int]) -> None:
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
        self.special = special_tokens(pieces.hf)

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
