"""What is packed is unpacked up to a bound, and no further."""

from __future__ import annotations

import bz2
import lzma
import re
import zlib
from typing import TYPE_CHECKING

import pytest

from tasks.broker.message.message import MAX_BODY_BYTES, id_in, require_size, unpacked
from tasks.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": zlib.compress,
    "application/x-gzip": zlib.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}


@pytest.mark.parametrize("name", PACKERS)
def test_the_bound(name: str) -> None:
    """A body that is as large as the bound is taken; one with a byte more is refused with an error that names the bound."""
    whole = b" " * MAX_BODY_BYTES
    assert unpacked(PACKERS[name](whole), name) == whole
    with pytest.raises(InvalidRequest, match=f"{MAX_BODY_BYTES} bytes"):
        unpacked(PACKERS[name](whole + b" "), name)


@pytest.mark.parametrize("name", PACKERS)
def test_not_one_stream(name: str) -> None:
    """What is cut off, followed by something, or not packed at all is refused."""
    packed = PACKERS[name](b"[[], {}, {}]")
    assert unpacked(packed, name) == b"[[], {}, {}]"
    for wrong in (packed[:-5], packed + b"more", b"[[], {}, {}]", b""):
        with pytest.raises(InvalidRequest, match=re.escape(f"{name}")):
            unpacked(wrong, name)


@pytest.mark.parametrize("name", ["brotli", "zip-of-mine", 5, [], {}, True])
def test_another_compression(name: object) -> None:
    """A compression that is not taken is refused with those that are."""
    with pytest.raises(InvalidRequest, match="gzip, bzip2 and lzma are taken"):
        unpacked(b"", name)


def test_a_size_names_the_bound() -> None:
    """What is too large is refused with its size and the bound."""
    require_size("message", 10, 10)
    with pytest.raises(InvalidRequest, match="message has 11 bytes: at most 10 "):
        require_size("message", 11, 10)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b'{"body": "x", "properties": {"correlation_id": "a-b"}}', "a-b"),
        (b'{"properties":{"correlation_id":"a-b"},"body":"' + b"x" * 200_000, "a-b"),
        (b'{"body": "{\\"correlation_id\\": \\"a-b\\"}"}', None),
        (b'{"properties": {"correlation_id": ""}}', None),
        (b"", None),
    ],
)
def test_an_id_in_what_cannot_be_read(text: bytes, found: str | None) -> None:
    """The id of a message that is too large to be read is found before or behind its body, and never inside it."""
    assert id_in(text) == found
