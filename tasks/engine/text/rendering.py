"""Stores the text that a chat template made of a conversation, without the conversation's own words.

A template may print the time, or anything else that is not the same twice. A resumed request goes on from the prompt that
was computed, so the journal says what the template wrote around the messages; that is some hundred bytes. The messages are
in the request, which the next attempt has.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Sequence

#: A longer rendering is not written down: its template changes most of a long conversation.
MOST_BYTES = 64 * 1024
#: The most bytes that the JSON of a rendering unpacks to.
MOST_UNPACKED_BYTES = 16 * 1024 * 1024
#: Templates keep the order of what they are given, and write little between: a text is looked for this far on.
NEAR_CHARACTERS = 16 * 1024
#: The parts of a text that are left whole where it is trimmed, split or escaped.
_PARTS = re.compile(r'[^\n"\\]{8,}')
#: The fields of a message, a call and a tool that are nobody's text: the checks of a request allow a few words alone.
FIXED = frozenset({"role", "type"})
#: The field of a call in which such names are anybody's.
_ARGUMENTS = "arguments"


def words_of(value: Any, fixed: Container[str] = FIXED) -> Iterator[str]:
    """The texts that a conversation, or a part of it, has in it; not those of ``fixed`` fields."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for entry in value:
            yield from words_of(entry, fixed)
    elif isinstance(value, dict):
        for name, entry in value.items():
            if name not in fixed:
                yield from words_of(entry, () if name == _ARGUMENTS else fixed)


def write(text: str, words: Sequence[str]) -> str:
    """The rendered text as base64 of compressed JSON, with references in the place of the words; empty if it is too long."""
    parts: list[str | list[int]] = []
    at = 0
    for place, start, length in _found(text, words):
        if place > at:
            parts.append(text[at:place])
        parts.append([start, length])
        at = place + length
    if at < len(text):
        parts.append(text[at:])
    packed = base64.b64encode(zlib.compress(json.dumps(parts, allow_nan=False).encode(), 9))
    return packed.decode() if len(packed) <= MOST_BYTES else ""


def read(written: str, words: Sequence[str]) -> str | None:
    """The rendered text; ``None`` where it was not written down, or cannot be read."""
    source = "".join(words)
    try:
        unpacker = zlib.decompressobj()
        unpacked = unpacker.decompress(base64.b64decode(written, validate=True), MOST_UNPACKED_BYTES)
        parts = json.loads(unpacked)
        return "".join(part if isinstance(part, str) else source[part[0] : part[0] + part[1]] for part in parts) or None
    except (ValueError, zlib.error, TypeError, IndexError, RecursionError):
        return None


def _found(text: str, words: Iterable[str]) -> Iterator[tuple[int, int, int]]:
    """Yield where words are in the text, in its order: the place, where they begin in all words together, and their length."""
    at = start = 0
    for word in words:
        for offset, part in _candidates(text, word, at):
            place = text.find(part, at, at + len(part) + NEAR_CHARACTERS)
            if place >= 0:
                yield place, start + offset, len(part)
                at = place + len(part)
        start += len(word)


def _candidates(text: str, word: str, at: int) -> Iterator[tuple[int, str]]:
    """Yield texts to look for: the word, or else without white space around it, or else its parts."""
    stripped = word.strip()
    for whole in (word, stripped):
        if whole and text.find(whole, at, at + len(whole) + NEAR_CHARACTERS) >= 0:
            yield word.index(whole), whole
            return
    for match in _PARTS.finditer(word):
        yield match.start(), match[0]
