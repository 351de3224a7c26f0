"""What Redis says, parsed from pieces of any size, and what it is told."""

from __future__ import annotations

from typing import Any

import pytest
from redis.connection import Connection
from redis.exceptions import InvalidResponse, NoScriptError

from tasks.server.resp import Replies, fields_of, pack

#: What Redis sends, and what is made of it.
SAID: tuple[tuple[bytes, Any], ...] = (
    (b"+OK\r\n", b"OK"),
    (b":-3\r\n", -3),
    (b":0\r\n", 0),
    (b"$-1\r\n", None),
    (b"$0\r\n\r\n", b""),
    (b"$7\r\na\r\nb$1*\r\n", b"a\r\nb$1*"),
    (b"*-1\r\n", None),
    (b"*0\r\n", []),
    (b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\n{}\r\n", [b"message", b"c", b"{}"]),
    (
        b"*2\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$1\r\nd\r\n$1\r\nx\r\n*2\r\n$3\r\n1-1\r\n*0\r\n",
        [[b"1-0", [b"d", b"x"]], [b"1-1", []]],
    ),
)


def redis_py() -> Any:
    connection: Any = Connection
    return connection()


def replies() -> Replies:
    return Replies(redis_py()._parser.parse_error)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1_000])
def test_pieces_of_any_size(size: int) -> None:
    """A reply is the same wherever the system cuts what comes."""
    said = b"".join(text for text, _ in SAID)
    parser = replies()
    found = [reply for at in range(0, len(said), size) for reply in parser.feed(said[at : at + size])]
    assert found == [meant for _, meant in SAID]


def test_errors_are_redis_pys() -> None:
    """What Redis refuses is an exception of the class that redis-py gives it, and is not raised."""
    (found,) = replies().feed(b"-NOSCRIPT No matching script. Please use EVAL.\r\n")
    assert isinstance(found, NoScriptError)


def test_no_redis() -> None:
    """Something else that answers at the address is said to be no Redis."""
    with pytest.raises(InvalidResponse, match="Protocol error"):
        replies().feed(b"HTTP/1.1 400 Bad Request\r\n")


def test_commands_are_packed_as_redis_py_does() -> None:
    """A command is the same on the wire whoever packs it."""
    command = ("EVALSHA", "ä", 2, b"\xff\r\n", "", 0.5)
    assert pack(*command) == b"".join(redis_py().pack_command(*command))


def test_fields() -> None:
    """An entry's fields come as names and values in turns."""
    assert fields_of([b"d", b"x", b"e", b"y"]) == {b"d": b"x", b"e": b"y"}
