"""The id of a job."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

from tasks.bulk.identity import is_of_input, job_id

if TYPE_CHECKING:
    from pathlib import Path

INPUT, OTHER = "0123456789abcdef", "0123456789abcdfe"


def test_the_same_command(tmp_path: Path) -> None:
    """The same input and output have the same id, however the path is given and whether the file is there."""
    target = tmp_path / "output.jsonl"
    first = job_id(INPUT, target)
    target.touch()
    assert first == job_id(INPUT, str(target)) == job_id(INPUT, os.path.relpath(target))
    assert len(first) == 16


def test_others(tmp_path: Path) -> None:
    """Another output is another job of the same input; another input is none of it."""
    first, second = job_id(INPUT, tmp_path / "a"), job_id(INPUT, tmp_path / "b")
    assert first[:6] != second[:6]
    assert is_of_input(first, second)
    assert is_of_input(INPUT, first)  # of a version whose ids followed from the input alone
    assert not is_of_input(job_id(OTHER, tmp_path / "a"), first)


def test_what_cannot_be_continued(tmp_path: Path) -> None:
    """Two jobs whose answers go to streams, or whose input is one, have nothing in common."""
    os.mkfifo(tmp_path / "pipe")
    for digest, output in ((INPUT, None), (INPUT, io.BytesIO()), (INPUT, tmp_path / "pipe"), (None, tmp_path / "a")):
        assert job_id(digest, output) != job_id(digest, output)
