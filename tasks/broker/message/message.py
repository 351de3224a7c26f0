"""A received message, within bounds.

Kombu unpacks a compressed body all at once, however large it becomes. Here a message that exceeds a bound is dropped, with an
error that names the bound.
"""

from __future__ import annotations

import bz2
import lzma
import re
import zlib
from contextlib import suppress
from json import JSONDecoder
from typing import TYPE_CHECKING, Any, Protocol

from kombu.transport import virtual
from kombu.utils.json import JSONEncoder, object_hook
from pydantic_core import PydanticSerializationError, to_json

from tasks.errors import InvalidRequest
from tasks.messages.encoding import from_json
from tasks.messages.identifier import is_identifier
from worker_config.units import MIB

if TYPE_CHECKING:
    from collections.abc import Callable

#: The text of a message: its body in base64, and its headers.
MAX_MESSAGE_BYTES = 24 * MIB
#: The unpacked body. A prompt of 4 MiB, the largest, takes up to three times as much as JSON.
MAX_BODY_BYTES = 16 * MIB
#: A control broadcast, which may hold the ids of a large group.
MAX_CONTROL_BYTES = MIB
#: Memory for unpacking beside the result: with lzma the sender chooses it.
UNPACKING_BYTES = 64 * MIB


#: How far from both ends the id is looked for in a message that is too large to be read.
EDGE_BYTES = 64 * 1024
_TASK_ID = re.compile(rb'"correlation_id": ?"([^"\\]{1,256})"')


#: Kombu makes one of each for each message.
_ENCODER = JSONEncoder()
_DECODER = JSONDecoder(object_hook=object_hook)
_TYPED = "__type__"
_JSON = "application/json"


def message_text(value: Any) -> str:
    """A message, or its body, as kombu writes it."""
    return str(_ENCODER.encode(value))


def plain_text(value: Any) -> str:
    """The text of a value of JSON's own types alone, which takes a third of the time. No date or the like may be in it."""
    try:
        return to_json(value).decode()
    except PydanticSerializationError:  # one half of a character
        return message_text(value)


def message_value(text: str) -> Any:
    """Return the value that kombu reads in the text of a message, or of its body."""
    # Kombu looks at each object for one that stands for a date, or another of Python's types.
    return _DECODER.decode(text) if _TYPED in text else from_json(text)


class Unpacker(Protocol):
    """Unpacks one stream, as those of the standard library do."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Unpack so many bytes at most."""

    @property
    def eof(self) -> bool:
        """Whether the stream has ended."""

    @property
    def unused_data(self) -> bytes:
        """The bytes after its end."""


def _lzma() -> Unpacker:
    return lzma.LZMADecompressor(memlimit=UNPACKING_BYTES)


#: By each of kombu's names.
UNPACKERS: dict[str, Callable[[], Unpacker]] = {
    **dict.fromkeys(("application/x-gzip", "gzip", "zlib"), zlib.decompressobj),
    **dict.fromkeys(("application/x-bz2", "bzip2", "bzip"), bz2.BZ2Decompressor),
    **dict.fromkeys(("application/x-lzma", "lzma", "xz"), _lzma),
}


def require_size(part: str, size_bytes: int, most_bytes: int) -> None:
    """Check the size of a message or of a part of it.

    Raises:
        InvalidRequest: it is larger than that.
    """
    if size_bytes > most_bytes:
        raise InvalidRequest(f"{part} has {size_bytes} bytes: at most {most_bytes} ({most_bytes // MIB} MiB) are taken")


def fault(error: Exception) -> str:
    """Explain an error that occurred while a message was read."""
    return "nested too deeply" if isinstance(error, RecursionError) else type(error).__name__


def id_in(text: bytes) -> str | None:
    """The task id in the text of a message that cannot be read, if it is where kombu writes it."""
    found = _TASK_ID.search(text[-EDGE_BYTES:]) or _TASK_ID.search(text[:EDGE_BYTES])
    task_id = found.group(1).decode(errors="replace") if found else None
    return task_id if is_identifier(task_id) else None


def unpacked(body: bytes, compression: Any) -> bytes:
    """The unpacked body of a message; unpacking stops at the bound.

    Raises:
        InvalidRequest: it is too large, or is not what the header says.
    """
    maker = UNPACKERS.get(compression) if isinstance(compression, str) else None
    if maker is None:
        raise InvalidRequest(f"headers.compression is {compression!r:.60}: gzip, bzip2 and lzma are taken")
    unpacker = maker()
    try:
        found = unpacker.decompress(body, MAX_BODY_BYTES + 1)
    except (zlib.error, OSError, lzma.LZMAError, EOFError, ValueError) as error:
        raise InvalidRequest(f"body: not {compression} ({type(error).__name__})") from None
    if len(found) > MAX_BODY_BYTES:
        raise InvalidRequest(f"body: unpacked it has more than the {MAX_BODY_BYTES} bytes (16 MiB) that are taken")
    if not unpacker.eof or unpacker.unused_data:
        raise InvalidRequest(f"body: not one whole stream of {compression}")
    return found


class Message(virtual.Message):
    """Kombu's message, whose body is unpacked within bounds."""

    def __init__(self, payload: dict[str, Any], channel: Any = None, **options: Any) -> None:
        headers, properties, body = payload.get("headers"), payload["properties"], payload.get("body")
        plain = payload
        if isinstance(headers, dict) and headers.get("compression") is not None:
            packed = channel.decode_body(body, properties.get("body_encoding"))
            plain = {
                **payload,
                "body": unpacked(packed.encode() if isinstance(packed, str) else packed, headers["compression"]),
                "headers": {name: value for name, value in headers.items() if name != "compression"},
                "properties": {name: value for name, value in properties.items() if name != "body_encoding"},
            }
        super().__init__(plain, channel=channel, **options)
        self._raw = payload  # the worker holds, and requeues, the message as it came
        require_size("body", len(self.body or ""), MAX_BODY_BYTES)

    def reject(self, requeue: bool = False) -> None:
        """Drop the message, or give it back to its queue, also if Redis has lost it meanwhile."""
        if requeue and self.channel is not None and not self.acknowledged:
            self.channel.qos.regain(self)
        super().reject(requeue=requeue)

    def _decode(self) -> Any:
        """Decode plain JSON here: kombu makes a decoder for each message. Other messages go kombu's way."""
        if self.content_type == _JSON and self.content_encoding == "utf-8" and _JSON in (self.accept or ()):
            with suppress(ValueError, RecursionError):
                return message_value(self.body if isinstance(self.body, str) else self.body.decode())
        return super()._decode()


def blames_message(error: Exception, connection: Any) -> bool:
    """Return whether an error on a message's way to its task is the message's fault, and not the connection's or the worker's.

    What text makes a decoder raise has no bounds. Kombu counts ``KeyError`` among the errors of a connection: a header that is
    missing would have the worker reconnect, get the message back, and so on for ever.
    """
    if isinstance(error, KeyError | RecursionError):
        return True
    return not isinstance(error, (*connection.connection_errors, *connection.channel_errors, RuntimeError, MemoryError))
