"""Redis's protocol (RESP2) for what is sent and read most: scripts, published messages, entries of journals.

redis-py calls a method or two for each line of a reply, twice the cost of parsing what has come in one loop. Its connections are
used all the same (:mod:`tasks.server.wire`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis.exceptions import InvalidResponse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_END = b"\r\n"
_BULK, _ARRAY, _INTEGER, _STATUS, _ERROR = b"$*:+-"


def pack(*command: str | int | float | bytes) -> bytes:
    """A command as it is sent.

    Raises:
        UnicodeEncodeError: a text has one half of a character.
    """
    parts = [b"*%d\r\n" % len(command)]
    for value in command:
        data = value if isinstance(value, bytes) else str(value).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


def fields_of(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """The fields of a stream's entry, which come as names and values in turns."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


class Replies:
    """Parses what one connection brings, in pieces of any size.

    Args:
        error_of: makes an exception of the text of an error.
    """

    def __init__(self, error_of: Callable[[str], Exception]) -> None:
        self._error_of = error_of
        self._rest = b""
        #: Arrays that are not complete yet, the outermost first, and how many elements each will have.
        self._open: list[tuple[list[Any], int]] = []

    def feed(self, data: bytes) -> list[Any]:
        """The replies that are complete now. Texts are bytes, and errors are exceptions, which are not raised.

        Raises:
            InvalidResponse: this is not Redis's protocol.
        """
        data = self._rest + data if self._rest else data
        replies: list[Any] = []
        at = 0
        while (end := data.find(_END, at)) >= 0:
            kind, line = data[at], data[at + 1 : end]
            value: Any
            after = end + 2
            if kind == _BULK:
                size = int(line)
                if size >= 0:
                    after += size + 2
                    if after > len(data):
                        break
                value = data[end + 2 : after - 2] if size >= 0 else None
            elif kind == _ARRAY:
                size = int(line)
                if size > 0:
                    self._open.append(([], size))
                    at = after
                    continue
                value = [] if size == 0 else None
            else:
                value = self._simple(kind, line)
            at = after
            self._add(value, replies)
        self._rest = data[at:]
        return replies

    def _simple(self, kind: int, line: bytes) -> Any:
        if kind == _INTEGER:
            return int(line)
        if kind == _STATUS:
            return line
        if kind == _ERROR:
            return self._error_of(line.decode(errors="replace"))
        raise InvalidResponse(f"Protocol Error: {bytes([kind]) + line[:100]!r}")

    def _add(self, value: Any, replies: list[Any]) -> None:
        """Add an element to the innermost array, and close those that it completes."""
        while self._open:
            elements, size = self._open[-1]
            elements.append(value)
            if len(elements) < size:
                return
            self._open.pop()
            value = elements
        replies.append(value)
