"""Where a bulk job's lines come from: a file, a pipe, or an iterable."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from tasks.bulk.line import MAX_LINE_BYTES, BadLine, Line, id_in, parsed, read_line, shape_of
from tasks.errors import InvalidRequest
from tasks.messages.encoding import to_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.bulk.line import Shape

#: What ``generate.bulk`` takes.
Given: TypeAlias = "str | os.PathLike[str] | IO[bytes] | Iterable[Any]"
#: So many pairs of lines with one id are named in the error.
MOST_NAMED = 3
_CHUNK_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Survey:
    """What a file is: a digest of its bytes and of the defaults, and how many lines it has."""

    digest: str
    count: int


class Source:
    """Reads lines, in their order, and no more than is asked for.

    Args:
        given: a path, a stream, or an iterable of dictionaries, or of prompts.
        defaults: parameters of all lines.

    Raises:
        InvalidRequest: it is nothing of these.
    """

    def __init__(self, given: Given, defaults: Mapping[str, Any]) -> None:
        if isinstance(given, Mapping | bytes) or not isinstance(given, str | os.PathLike | Iterable):
            raise InvalidRequest(
                f"the source is a {type(given).__name__}: give a path, a stream, or a list of dictionaries or prompts"
            )
        self._given = given
        self._defaults = dict(defaults)
        self.path = Path(given) if isinstance(given, str | os.PathLike) else None
        self._seen: dict[bytes, int] = {}
        #: That of the last line which had one: a line that cannot be read is answered in the shape of its file.
        self._shape: Shape = "plain"

    def survey(self) -> Survey | None:
        """Read a file once before anything is sent; ``None`` for what can be read only once.

        Raises:
            InvalidRequest: it cannot be read, is empty, or two lines have one id.
        """
        if self.path is None:
            return None
        digest = hashlib.blake2b(to_json(self._defaults, sort_keys=True).encode(), digest_size=8)
        count, ids, twice = 0, dict[bytes, int](), list[str]()
        try:
            with self.path.open("rb") as file:
                for number, text in texts(file, digest):
                    count += 1
                    record = _record(text)
                    if record is None:
                        continue
                    if not ids:
                        self._shape = shape_of(record)
                    line_id = id_in(record) or str(number)
                    first = ids.setdefault(hash_of(line_id), number)
                    if first != number:
                        twice.append(f"lines {first} and {number} ({line_id!r:.60})")
        except OSError as error:
            raise InvalidRequest(f"{self.path}: cannot be read ({error.strerror})") from None
        if twice:
            more = f", and {len(twice) - MOST_NAMED} more" if len(twice) > MOST_NAMED else ""
            raise InvalidRequest(
                f"{self.path}: the same id twice: {', '.join(twice[:MOST_NAMED])}{more}: give each line an id of its own"
            )
        if not count:
            raise InvalidRequest(f"{self.path}: is empty: write one JSON object in each line")
        return Survey(digest.hexdigest(), count)

    def lines(self) -> Iterator[Line | BadLine]:
        """All lines; one that cannot be sent says why."""
        if self.path is not None:
            with self.path.open("rb") as file:
                for number, text in texts(file):
                    yield self._line(number, text)
            return
        assert not isinstance(self._given, str | os.PathLike)
        for number, given in _numbered(self._given):
            line = self._line(number, given)
            yield self._unless_twice(line)

    def _line(self, number: int, given: Any) -> Line | BadLine:
        if given is None:
            error = InvalidRequest(f"line {number}: has more than {MAX_LINE_BYTES} bytes (4 MiB): send less text")
            return BadLine(number, None, self._shape, error)
        if isinstance(given, str):  # of an iterable: a prompt
            given = {"prompt": given}
        try:
            line = read_line(number, given, self._defaults, self._shape)
        except (TypeError, ValueError) as error:
            wrong = InvalidRequest(f"line {number}: is no dictionary ({error}): give dictionaries, or prompts as text")
            return BadLine(number, None, self._shape, wrong)
        self._shape = line.shape
        return line

    def _unless_twice(self, line: Line | BadLine) -> Line | BadLine:
        if line.id is None:
            return line
        first = self._seen.setdefault(hash_of(line.id), line.number)
        if first == line.number:
            return line
        error = InvalidRequest(f"line {line.number}: its id {line.id!r:.60} is that of line {first}: give it another")
        return BadLine(line.number, line.id, line.shape, error, line.url)


def _record(text: bytes | None) -> dict[str, Any] | None:
    try:
        return None if text is None else parsed(text)
    except InvalidRequest:
        return None


def hash_of(line_id: str) -> bytes:
    """So that a hundred thousand long ids take little memory."""
    return hashlib.blake2b(line_id.encode(errors="surrogatepass"), digest_size=12).digest()


def _numbered(given: Any) -> Iterator[tuple[int, Any]]:
    if hasattr(given, "readline"):
        yield from texts(given)
    else:
        yield from enumerate(given, start=1)


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
