"""The file that answers are written to. It says itself which lines are done, so that a job that was killed goes on from it."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tasks.bulk.identity import is_of_input
from tasks.bulk.numbers import Numbers
from tasks.errors import GenerationError, InvalidRequest
from tasks.messages.encoding import to_compact_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: More lines than a driver writes at a time: one that was killed may not have deleted what Redis had of them.
LAST_IDS = 5_000
#: Where a line of the output has its job and its number.
_TASK_ID = re.compile(r"^(?:batch_req_)?bulk-([0-9a-f]+)-(\d+)(?:-r\d+)?$")


class OutputFailed(GenerationError):
    """The output cannot be written. What was written is whole, and the same command goes on from there."""

    code = "output_failed"


@dataclass(slots=True)
class Done:
    """What an output has already: the numbers of its lines, and the sums over them."""

    numbers: Numbers = field(default_factory=Numbers)
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, number: int, record: dict[str, Any]) -> None:
        """Count a line."""
        self.numbers.add(number)
        response = record.get("response") or {}
        usage = (response.get("body") or record).get("usage") or {}
        self.failed += has_failed(record)
        self.prompt_tokens += int(usage.get("prompt_tokens", 0))
        self.completion_tokens += int(usage.get("completion_tokens", 0))


def has_failed(record: Mapping[str, Any]) -> bool:
    """Whether a line of the output is that of an error, in either shape."""
    response = record.get("response") or {}
    return bool(record.get("error")) or response.get("status_code", 200) != 200


class Output:
    """Appends whole lines.

    Args:
        target: a path, or a binary stream.
        job_id: the job whose answers it gets.
    """

    def __init__(self, target: str | os.PathLike[str] | IO[bytes], job_id: str) -> None:
        self._job_id = job_id
        self.path = Path(target) if isinstance(target, str | os.PathLike) else None
        self._stream = None if isinstance(target, str | os.PathLike) else target
        self._descriptor = -1
        self._is_made = False
        #: The requests of the last lines that it had when it was opened: their journals may still be there.
        self.last_ids: deque[str] = deque(maxlen=LAST_IDS)

    def open(self, done: Done, *, is_read_once: bool = False) -> None:
        """Take the file for this job, add to ``done`` what it has, and cut off a last line that was torn.

        Args:
            done: what is done.
            is_read_once: whether the input is a stream or an iterable, of which nobody knows where to go on.

        Raises:
            InvalidRequest: it has the answers of another input, or is no output of a bulk job.
            OutputFailed: it cannot be opened, or another job writes it.
        """
        if self.path is None:
            return
        try:
            if self.path.exists() and not self.path.is_file() and not self.path.is_dir():
                # A device or a named pipe has nothing to go on from, and may be read for ever.
                self._stream = self.path.open("wb")
                return
            self._descriptor, is_made = _opened(self.path)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._is_made = is_made
        except BlockingIOError:
            raise OutputFailed(
                f"{self.path}: another job is writing it: wait for that, or choose another output"
            ) from None
        except OSError as error:
            raise OutputFailed(f"{self.path}: cannot be opened ({error.strerror})") from None
        os.ftruncate(self._descriptor, self._read(done, is_read_once=is_read_once))

    def write(self, records: Iterable[dict[str, Any]]) -> None:
        """Append lines; when this returns they are on the disk.

        Raises:
            OutputFailed: they are not, and neither is a part of them.
            BrokenPipeError: it is a pipe that nobody reads any more.
        """
        text = b"".join(to_compact_json(record).encode() + b"\n" for record in records)
        try:
            if self._stream is not None:
                self._stream.write(text)
                self._stream.flush()
            else:
                self._append(text)
        except BrokenPipeError:
            raise
        except OSError as error:
            where = self.path or "the output"
            raise OutputFailed(
                f"{where}: cannot be written ({error.strerror}): make room, then give the same command again"
            ) from None

    def close(self) -> None:
        """Let go of the file."""
        if self.path is not None and self._stream is not None:
            with suppress(OSError):  # the failed write was reported already
                self._stream.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def give_up(self) -> None:
        """Let go of the file before anything was written; one that was made for it is not left behind."""
        if self._is_made and self.path is not None and os.fstat(self._descriptor).st_size == 0:
            self.path.unlink(missing_ok=True)
        self.close()

    def _append(self, text: bytes) -> None:
        end = os.fstat(self._descriptor).st_size
        try:
            left = memoryview(text)
            while left:
                left = left[os.write(self._descriptor, left) :]
            os.fsync(self._descriptor)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._descriptor, end)
            raise

    def _read(self, done: Done, *, is_read_once: bool) -> int:
        """Note what is there; where the last whole line ends."""
        end = 0
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            for number, text in enumerate(file, start=1):
                if not text.endswith(b"\n"):
                    break
                record = self._record(number, text)
                found = _TASK_ID.match(str(record.get("task_id") or record.get("id")))
                if found is None:
                    raise InvalidRequest(f"{self.path}: line {number} was not written by a bulk job: {_REMEDY}")
                if is_read_once:
                    raise InvalidRequest(
                        f"{self.path}: has answers already, and a job whose input is no file cannot be continued: give the input "
                        f"as a file, {_REMEDY}"
                    )
                if not is_of_input(found[1], self._job_id):
                    raise InvalidRequest(
                        f"{self.path}: has answers of another input, or of other parameters (job {found[1]}; this is "
                        f"{self._job_id}): {_REMEDY}"
                    )
                done.add(int(found[2]), record)
                self.last_ids.append(found[0].removeprefix("batch_req_"))
                end += len(text)
        return end

    def _record(self, number: int, text: bytes) -> dict[str, Any]:
        try:
            record = json.loads(text)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise InvalidRequest(f"{self.path}: line {number} is not a JSON object: {_REMEDY}")
        return record


def _opened(path: Path) -> tuple[int, bool]:
    """A descriptor, and whether the file was made for it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
    try:
        return os.open(path, flags | os.O_EXCL, 0o644), True
    except FileExistsError:
        return os.open(path, flags, 0o644), False


_REMEDY = "choose another output, or remove this one"
