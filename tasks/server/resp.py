"""Redis's protocol, by hiredis, on the connections that carry most (:mod:`tasks.server.wire`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from hiredis import Reader, pack_command
from redis.exceptions import InvalidResponse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_INCOMPLETE = object()


def pack(*command: str | int | float | bytes) -> bytes:
    """A command as it is sent.

    Raises:
        UnicodeEncodeError: a text has one half of a character.
    """
    packed: bytes = pack_command(cast("Any", command))  # its types have tuples of one element
    return packed


def fields_of(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """The fields of a stream's entry, which come as names and values in turns."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


class Replies:
    """Parses the replies of one connection, in pieces of any size.

    Args:
        error_of: makes an exception of the text of an error.
    """

    def __init__(self, error_of: Callable[[str], Exception]) -> None:
        self._reader = Reader(protocolError=InvalidResponse, replyError=error_of, notEnoughData=_INCOMPLETE)

    def feed(self, data: bytes) -> list[Any]:
        """The replies that are complete now. Texts are bytes, and errors are exceptions, which are not raised.

        Raises:
            InvalidResponse: this is not Redis's protocol.
        """
        self._reader.feed(data)
        replies = []
        while (reply := self._reader.gets()) is not _INCOMPLETE:
            replies.append(reply)
        return replies
