"""The source of a bulk job's lines: a file, a pipe, or an iterable."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from tasks.bulk.ids import Ids
from tasks.bulk.line import MAX_LINE_BYTES, BadLine, Line, check_defaults, read_line
from tasks.bulk.survey import refuse_format, survey
from tasks.bulk.texts import texts
from tasks.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.bulk.line import Shape
    from tasks.bulk.survey import Survey

#: What ``generate.bulk`` takes.
Given: TypeAlias = "str | os.PathLike[str] | IO[bytes] | Iterable[Any]"


class Source:
    """Reads lines, in their order, and no more than is asked for.

    Args:
        given: a path, a stream, or an iterable of dictionaries, or of prompts.
        defaults: parameters of all lines.

    Raises:
        InvalidRequest: it is nothing of these, or no line has such a parameter.
    """

    def __init__(self, given: Given, defaults: Mapping[str, Any]) -> None:
        if isinstance(given, Mapping | bytes) or not isinstance(given, str | os.PathLike | Iterable):
            raise InvalidRequest(
                f"the source is a {type(given).__name__}: give a path, a stream, or a list of dictionaries or prompts"
            )
        check_defaults(defaults)
        self._given = given
        self._defaults = dict(defaults)
        self.path = Path(given) if isinstance(given, str | os.PathLike) else None
        self._has_text = self.path is not None or hasattr(given, "readline")
        self._ids = Ids()
        #: That of the last line which had one: a line that cannot be read is answered in the shape of its file.
        self._shape: Shape = "plain"

    def survey(self) -> Survey | None:
        """Read a file once before anything is sent; ``None`` for what can be read only once.

        Raises:
            InvalidRequest: it cannot be read or used.
        """
        if self.path is None:
            return None
        found = survey(self.path, self._defaults)
        self._shape = found.shape
        return found

    def lines(self) -> Iterator[Line | BadLine]:
        """All lines; one that cannot be sent says why."""
        if self.path is not None:
            with self.path.open("rb") as file:
                for number, text in texts(file):
                    yield self._line(number, text)
            return
        assert not isinstance(self._given, str | os.PathLike)
        for number, given in _numbered(self._given) if self._has_text else enumerate(self._given, start=1):
            line = self._line(number, given)
            yield self._unless_twice(line)

    def _line(self, number: int, given: Any) -> Line | BadLine:
        if given is None and self._has_text:
            error = InvalidRequest(f"line {number}: has more than {MAX_LINE_BYTES} bytes (4 MiB): send less text")
            return BadLine(number, None, self._shape, error)
        if isinstance(given, str):  # of an iterable: a prompt
            given = {"prompt": given}
        try:
            line = read_line(number, given, self._defaults, self._shape)
        except (TypeError, ValueError) as error:
            wrong = InvalidRequest(
                f"line {number}: is not a dictionary ({error}): give dictionaries, or prompts as text"
            )
            return BadLine(number, None, self._shape, wrong)
        self._shape = line.shape
        return line

    def _unless_twice(self, line: Line | BadLine) -> Line | BadLine:
        if line.id is None:
            return line
        first = self._ids.first(line.id, line.number)
        if first == line.number:
            return line
        error = InvalidRequest(f"line {line.number}: its id {line.id!r:.60} is that of line {first}: give it another")
        return BadLine(line.number, line.id, line.shape, error, line.url)


def _numbered(stream: Any) -> Iterator[tuple[int, bytes | None]]:
    for place, (number, text) in enumerate(texts(stream)):
        if not place:
            refuse_format(text, "-")
        yield number, text
