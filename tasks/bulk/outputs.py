"""Where finished lines are written: all to one file, or those that failed to a file of their own."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

from tasks.bulk.output import Output, has_failed
from tasks.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tasks.bulk.output import Done


class Outputs:
    """The outputs of a job: none, one, or two. Each line is in one of them.

    Args:
        job_id: the job.
        output: a path, or a binary stream; ``None`` where answers are not written.
        errors: the same for lines that fail; ``None`` where they are written beside the answers.

    Raises:
        InvalidRequest: there is a place for errors alone.
    """

    def __init__(self, job_id: str, output: Any, errors: Any = None) -> None:
        if output is None and errors is not None:
            raise InvalidRequest("errors is set and output is not: give an output for the answers, too")
        self._answers = None if output is None else Output(output, job_id)
        self._errors = None if errors is None else Output(errors, job_id)

    @property
    def path(self) -> Path | None:
        """The file of the answers, if they go to one."""
        return None if self._answers is None else self._answers.path

    @property
    def last_ids(self) -> Iterator[str]:
        """The requests of the last lines that the files had when they were opened."""
        return chain.from_iterable(output.last_ids for output in self._all)

    def open(self, done: Done, source: Path | None) -> None:
        """Take the files for this job, and add to ``done`` what they have.

        Args:
            done: what is done.
            source: the file that is read; ``None`` for what can be read only once.

        Raises:
            InvalidRequest: one of them cannot be used; the message says what to do.
            OutputFailed: one cannot be opened, or another job writes it.
        """
        taken = {"the input": source}
        for name, output in (("the output", self._answers), ("the file of errors", self._errors)):
            if output is None or output.path is None:
                continue
            for other, path in taken.items():
                if path is not None and _is_same(output.path, path):
                    raise InvalidRequest(f"{output.path}: is {other}, too: choose another file for {name}")
            taken[name] = output.path
        try:
            for output in self._all:
                output.open(done, is_read_once=source is None)
        except Exception:
            for output in self._all:
                output.give_up()
            raise

    def write(self, records: Sequence[dict[str, Any]]) -> None:
        """Append lines; when this returns they are on the disk.

        Raises:
            OutputFailed: some are not.
        """
        lines: dict[Output | None, list[dict[str, Any]]] = {}
        for record in records:
            place = self._errors if self._errors is not None and has_failed(record) else self._answers
            lines.setdefault(place, []).append(record)
        for output in self._all:
            if output in lines:
                output.write(lines[output])

    def close(self) -> None:
        """Let go of the files."""
        for output in self._all:
            output.close()

    @property
    def _all(self) -> list[Output]:
        return [output for output in (self._answers, self._errors) if output is not None]


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:  # one of them is not there
        return path.absolute() == other.absolute()
