"""A file of lines as bytes: none that is empty, none that is longer than a request may be."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any

from tasks.bulk.line import MAX_LINE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK_BYTES = 2**20


def texts(file: IO[Any], digest: Any = None) -> Iterator[tuple[int, bytes | None]]:
    """The lines of a file with their numbers, without empty ones; ``None`` for one that is too long."""
    number = 0
    while text := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if isinstance(text, str):  # of a stream that was opened as text
            text = text.encode(errors="surrogatepass")
        if digest is not None:
            digest.update(text)
        is_whole = len(text) <= MAX_LINE_BYTES
        rest = text
        while not is_whole and not rest.endswith(b"\n") and (rest := file.readline(_CHUNK_BYTES)):
            if digest is not None:
                digest.update(rest)
        if not is_whole:
            yield number, None
        elif text.strip():
            yield number, text
