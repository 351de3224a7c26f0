"""The id of a bulk job, from which those of its requests follow."""

from __future__ import annotations

import hashlib
import os
import platform
import uuid
from pathlib import Path
from typing import Any

#: Hexadecimal digits of an id. The first ones are those of the place of the answers, so that jobs of one input begin differently;
#: the others are those that the digest of the input and its defaults has there.
PLACE_DIGITS, DIGITS = 6, 16


def job_id(input_digest: str | None, output: Any) -> str:
    """The id of a job.

    The same input, defaults and output have the same id each time, so that a driver finds the requests of one that was killed.
    Two outputs of one input are two jobs: neither takes back nor deletes the other's requests. A job that cannot be continued has
    an id that no other has.

    Args:
        input_digest: hexadecimal digits, of the input and the defaults; ``None`` for what can be read only once.
        output: where the answers go: a path, a stream, or ``None``.
    """
    if input_digest is None:
        return uuid.uuid4().hex[:DIGITS]
    return _place(output) + input_digest[PLACE_DIGITS:DIGITS]


def is_of_input(known: str, job: str) -> bool:
    """Whether the job ``known`` had the input and the defaults of ``job``, wherever its answers were."""
    return known[PLACE_DIGITS:] == job[PLACE_DIGITS:]


def _place(output: Any) -> str:
    path = _file_of(output)
    if path is None:
        return uuid.uuid4().hex[:PLACE_DIGITS]
    # Two machines may have a file of one name each.
    name = f"{platform.node()}\n{path}"
    return hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=PLACE_DIGITS // 2).hexdigest()


def _file_of(output: Any) -> Path | None:
    """The file that an output is, or will be; ``None`` for streams, devices and named pipes."""
    if not isinstance(output, str | os.PathLike):
        return None
    path = Path(output)
    try:
        return None if path.exists() and not path.is_file() else path.resolve()
    except (OSError, RuntimeError):  # it is refused as it is opened
        return path
