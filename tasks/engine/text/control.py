"""Control tokens in a chat: the template's are tokens, and what a message says in the same characters is text.

A template sees the messages with each such text between two characters that no message has; it may cut, trim, compare or
escape around them as it likes. All other control tokens in what it renders are its own.
"""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.engine.text.renamed import RenamedTokenizer, Segment, alternatives
from tasks.engine.text.rendering import FIXED
from tasks.engine.text.vocabulary import is_a_sign
from tasks.errors import InvalidRequest
from tasks.messages.encoding import to_canonical_json

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator

    from mlx_lm.tokenizer_utils import TokenizerWrapper


class Wrapping(NamedTuple):
    """The characters around a control token's text in a message."""

    start: str
    end: str

    def escaped(self) -> Iterator[tuple[str, str]]:
        """Yield each character with each way that a template may write it down: as Python does in a list, and as JSON."""
        for char in self:
            yield char, char.encode("unicode_escape").decode()
            yield char, to_canonical_json(char).strip('"')

    def is_in(self, text: str) -> bool:
        """Whether a text has one of the characters, or one of them escaped."""
        return any(char in text or escape in text for char, escape in self.escaped())

    def unescaped(self, text: str) -> str:
        """A rendered chat with the characters themselves where the template wrote them escaped."""
        for char, escape in self.escaped():
            text = text.replace(escape, char)
        return text


#: Of these the first that no message has is taken. They are private characters, which no language uses.
WRAPPINGS = tuple(Wrapping(chr(first), chr(first + 1)) for first in range(0xF0000, 0xF0100, 2))


#: As <|tool|>, with DeepSeek's wide bars too.
_HAS_FORM = re.compile(r"<[|｜][^<>]+[|｜]>").fullmatch


class _AddedToken(NamedTuple):
    id: int
    special: bool


def added_tokens(tokenizer: TokenizerWrapper) -> dict[str, int]:
    """The ids of the tokens that the tokenizer looks for in text before it cuts the rest into pieces, by their text."""
    return {text: token.id for text, token in _added(tokenizer).items()}


def _added(tokenizer: TokenizerWrapper) -> dict[str, _AddedToken]:
    hf: Any = tokenizer._tokenizer
    special = frozenset(hf.all_special_ids)
    try:
        added: dict[int, Any] = hf.added_tokens_decoder
    except NotImplementedError:  # mistral-common's tokenizers, whose special ids are complete
        return {str(hf.convert_ids_to_tokens(token_id)): _AddedToken(token_id, True) for token_id in special}
    return {
        token.content: _AddedToken(at, token.special or at in special)
        for at, token in added.items()
        if not is_a_sign(token.content)
    }


def special_tokens(tokenizer: TokenizerWrapper) -> dict[str, int]:
    """The ids of those of them that have no text."""
    return {text: token.id for text, token in _added(tokenizer).items() if token.special}


class ControlTokens:
    """The control tokens of one model. Any thread may call it.

    They are its special tokens, and those added ones that its chat template writes, that mark a part of an answer, or that have
    the form of one, since a template may put it together: other added tokens (white space, HTML) are text that the vocabulary has
    a shorter way for.

    Args:
        tokenizer: the model's.
        source: the chat template's text; where it is empty the template is a program, which may write any of them.
        markers: the texts of tokens that mark parts of an answer.
    """

    def __init__(self, tokenizer: TokenizerWrapper, source: str, markers: Iterable[str] = ()) -> None:
        marks = frozenset(markers)
        self._tokenizer = tokenizer
        self._ids = {
            text: token.id
            for text, token in _added(tokenizer).items()
            if text.strip() and (token.special or text in marks or not source or text in source or _HAS_FORM(text))
        }
        self._names = alternatives(self._ids)
        self._search = re.compile(self._names).search
        self._making = threading.Lock()
        self._renamed: RenamedTokenizer | None = None

    def wrap(self, messages: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], Wrapping | None]:
        """The messages with the control tokens in their texts wrapped, and in what; ``None`` where there are none.

        Raises:
            InvalidRequest: an argument of a tool's call has a control token in its name.
        """
        texts = list(_texts(messages))
        if not any(map(self._search, texts)):
            return messages, None
        wrapping = next((pair for pair in WRAPPINGS if not any(map(pair.is_in, texts))), None)
        if wrapping is None:
            raise InvalidRequest(
                "messages: have all private characters from U+F0000 to U+F00FF in them; leave some out"
            )
        wrap, around = re.compile(self._names).sub, rf"{wrapping.start}\g<0>{wrapping.end}"
        return [self._changed(message, lambda text: wrap(around, text), FIXED) for message in messages], wrapping

    def encode(self, text: str, wrapping: Wrapping) -> list[int]:
        """The ids of a rendered chat: control tokens are tokens where they are not wrapped, and text where they are."""
        with self._making:  # it takes a second for a large vocabulary, and few models ever need it
            if self._renamed is None:
                self._renamed = RenamedTokenizer(self._tokenizer._tokenizer, self._ids, self._names)
        return self._renamed.encode(self._segments(text, wrapping))

    def _segments(self, text: str, wrapping: Wrapping) -> list[Segment]:
        """The template's text and the messages' control tokens. What a template has cut off a wrapping is left out."""
        start, end = wrapping
        parts = re.split(rf"{start}({self._names}){end}|[{start}{end}]", text)
        return [Segment(part, literal=place % 2 == 1) for place, part in enumerate(parts) if part]

    def _changed(self, value: Any, change: Callable[[str], str], kept: Container[str] = ()) -> Any:
        """The value with all its texts changed, except those that an object has under the ``kept`` names itself."""
        if isinstance(value, str):
            return change(value)
        if isinstance(value, list):
            return [self._changed(entry, change) for entry in value]
        if not isinstance(value, dict):
            return value
        for name in value:
            if self._search(name):
                raise InvalidRequest(
                    f"messages: a tool or a tool call has an argument {name[:60]!r}: its name is a control token's"
                )
        return {name: entry if name in kept else self._changed(entry, change) for name, entry in value.items()}


def unwrapped(tail: str, wrapping: Wrapping) -> str:
    """The end of a rendered chat without what is wrapped in it."""
    start, end = wrapping
    return re.sub(rf"\A[^{start}{end}]*{end}|{start}[^{end}]*{end}|[{start}{end}]", "", tail)


def _texts(value: Any) -> Iterator[str]:
    """All texts in a value, the names of arguments among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for entry in value:
            yield from _texts(entry)
    elif isinstance(value, dict):
        for name, entry in value.items():
            yield name
            yield from _texts(entry)
