"""The output file: whole lines alone, and only those of its job."""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tasks.bulk.output import Done, Output, OutputFailed
from tasks.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

JOB = "0123456789abcdef"


def plain(number: int, **more: Any) -> dict[str, Any]:
    usage = {"prompt_tokens": 2, "completion_tokens": 3}
    return {"id": str(number), "task_id": f"bulk-{JOB}-{number}", "text": "ü", "usage": usage, **more}


def written(path: Path, *records: dict[str, Any]) -> Done:
    done, output = Done(), Output(path, JOB)
    output.open(done)
    output.write(records)
    output.close()
    return done


def test_it_goes_on(tmp_path: Path) -> None:
    """What is there counts, with its tokens and its errors, in both shapes."""
    path = tmp_path / "output.jsonl"
    written(path, plain(1), {"id": "2", "task_id": f"bulk-{JOB}-2-r1", "error": {"code": "x"}})
    body = {"usage": {"prompt_tokens": 5, "completion_tokens": 6}}
    written(
        path,
        {
            "id": f"batch_req_bulk-{JOB}-3",
            "custom_id": "c",
            "response": {"status_code": 200, "body": body},
            "error": None,
        },
        {
            "id": f"batch_req_bulk-{JOB}-4",
            "custom_id": "d",
            "response": {"status_code": 400, "body": {}},
            "error": None,
        },
        {"id": f"batch_req_bulk-{JOB}-5", "custom_id": "e", "response": None, "error": {"code": "batch_expired"}},
    )
    done = written(path)
    assert list(done.numbers) == [1, 2, 3, 4, 5]
    assert (done.failed, done.prompt_tokens, done.completion_tokens) == (3, 7, 9)


def test_a_torn_line(tmp_path: Path) -> None:
    """The last line of a driver that was killed is cut off; the next one begins where it began."""
    path = tmp_path / "output.jsonl"
    written(path, plain(1))
    with path.open("ab") as file:
        file.write(b'{"id":"2","task_id":"bulk-')
    assert list(written(path, plain(2)).numbers) == [1]
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["1", "2"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b'{"id":"1","task_id":"bulk-0123456789ffffff-1"}\n', "answers of another input, or of other parameters"),
        (b'{"id":"1"}\n', "line 1 was not written by a bulk job"),
        (b"precious\n", "line 1 is not a JSON object"),
    ],
)
def test_another_ones_file(tmp_path: Path, text: bytes, says: str) -> None:
    """A file with anything else in it is refused, with the remedy, and left as it is."""
    path = tmp_path / "output.jsonl"
    path.write_bytes(text)
    with pytest.raises(InvalidRequest, match=f"{says}.*: choose another output, or remove this one"):
        Output(path, JOB).open(Done())
    assert path.read_bytes() == text


def test_nobody_reads() -> None:
    """A pipe whose reader has gone is no disk that is full."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb", buffering=0) as stream, pytest.raises(BrokenPipeError):
        Output(stream, JOB).write([plain(1)])


def test_two_at_once(tmp_path: Path) -> None:
    """A second job is kept from writing the file."""
    path = tmp_path / "output.jsonl"
    first = Output(path, JOB)
    first.open(Done())
    with pytest.raises(OutputFailed, match="another job is writing it"):
        Output(path, JOB).open(Done())
    first.close()
    written(path)


@pytest.fixture
def little_room() -> Iterator[None]:
    """A file of this process can have 200 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_no_room(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """What was written before stays whole, nothing of the lines that did not fit is left, and the remedy is said."""
    path = tmp_path / "output.jsonl"
    output = Output(path, JOB)
    output.open(Done())
    output.write([plain(1)])
    request.getfixturevalue("little_room")
    with pytest.raises(OutputFailed, match=r"cannot be written \(.*\): make room, then give the same command again"):
        output.write([plain(2), plain(3)])
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["1"]
    output.close()


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_a_device() -> None:
    """It is written and never read: a full one says so, and one that takes everything has nothing to go on from."""
    done, output = Done(), Output("/dev/full", JOB)
    output.open(done)
    with pytest.raises(OutputFailed, match=r"/dev/full: cannot be written \(No space left on device\)"):
        output.write([plain(1)])
    output.close()
    assert list(written(Path("/dev/null"), plain(1)).numbers) == []


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """It is said before anything is sent."""
    with pytest.raises(OutputFailed, match="cannot be opened"):
        Output(tmp_path / "no" / "output.jsonl", JOB).open(Done())
