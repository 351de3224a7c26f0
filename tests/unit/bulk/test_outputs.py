"""The outputs of a job: answers in one file, errors in another, and neither in the input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tasks.bulk.output import Done, OutputFailed
from tasks.bulk.outputs import Outputs
from tasks.errors import InvalidRequest

if TYPE_CHECKING:
    from pathlib import Path

JOB = "0123456789abcdef"


def answered(number: int) -> dict[str, Any]:
    return {"id": str(number), "task_id": f"bulk-{JOB}-{number}", "text": "yes"}


def failed(number: int) -> dict[str, Any]:
    return {"id": str(number), "task_id": f"bulk-{JOB}-{number}", "error": {"code": "x", "message": "no"}}


def refused(number: int) -> dict[str, Any]:
    return {"id": f"batch_req_bulk-{JOB}-{number}", "custom_id": "c", "response": {"status_code": 400, "body": {}}}


def write(folder: Path, *records: dict[str, Any]) -> Done:
    """Write these lines, errors into a file of their own; what was there before."""
    done, outputs = Done(), Outputs(JOB, folder / "answers", folder / "errors")
    outputs.open(done, folder / "input")
    outputs.write(records)
    outputs.close()
    return done


def test_errors_in_a_file_of_their_own(tmp_path: Path) -> None:
    """Each line is in one file, both count where the job goes on, and without the errors those lines are done again."""
    write(tmp_path, answered(1), failed(2), answered(3), refused(4))
    assert [len((tmp_path / name).read_text().splitlines()) for name in ("answers", "errors")] == [2, 2]
    done = write(tmp_path)
    assert (list(done.numbers), done.failed) == ([1, 2, 3, 4], 2)
    (tmp_path / "errors").unlink()
    done = write(tmp_path)
    assert (list(done.numbers), done.failed) == ([1, 3], 0)


@pytest.mark.parametrize(
    ("output", "errors", "says"),
    [
        ("input", None, "input: is the input, too: choose another file for the output"),
        ("answers", "link", "link: is the input, too: choose another file for the file of errors"),
        ("answers", "answers", "answers: is the output, too: choose another file for the file of errors"),
        (None, "errors", "give an output for the answers, too"),
    ],
)
def test_one_file_for_two_purposes(tmp_path: Path, output: str | None, errors: str | None, says: str) -> None:
    """It is refused before anything is written."""
    source = tmp_path / "input"
    source.write_text("precious")
    (tmp_path / "link").symlink_to(source)
    with pytest.raises(InvalidRequest, match=says):
        Outputs(JOB, output and tmp_path / output, errors and tmp_path / errors).open(Done(), source)
    assert {path.name for path in tmp_path.iterdir()} == {"input", "link"}
    assert source.read_text() == "precious"


def test_an_input_that_is_read_once(tmp_path: Path) -> None:
    """Nobody knows where to go on in it: an output that has answers is left as it is, and an empty one is taken."""
    write(tmp_path, answered(1))
    before = (tmp_path / "answers").read_bytes()
    with pytest.raises(
        InvalidRequest, match="cannot be continued: give the input as a file, choose another output, or"
    ):
        Outputs(JOB, tmp_path / "answers").open(Done(), None)
    assert (tmp_path / "answers").read_bytes() == before
    outputs = Outputs(JOB, tmp_path / "errors")
    outputs.open(Done(), None)
    outputs.close()


@pytest.mark.parametrize("before", [None, "", "answered"])
def test_the_first_file_is_let_go(tmp_path: Path, before: str | None) -> None:
    """Where the second file cannot be opened, the first one is as it was before, and another job may have it."""
    answers = tmp_path / "answers"
    if before == "answered":
        write(tmp_path, answered(1))
    elif before is not None:
        answers.touch()
    found = answers.read_bytes() if answers.exists() else None
    with pytest.raises(OutputFailed, match="cannot be opened"):
        Outputs(JOB, answers, tmp_path / "no" / "errors").open(Done(), tmp_path / "input")
    assert (answers.read_bytes() if answers.exists() else None) == found
    outputs = Outputs(JOB, answers)
    outputs.open(Done(), tmp_path / "input")
    outputs.close()
