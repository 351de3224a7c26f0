"""Files, pipes and iterables as sources of lines."""

from __future__ import annotations

import gzip
import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from tasks.bulk.line import MAX_LINE_BYTES, BadLine
from tasks.bulk.source import Source
from tasks.errors import InvalidRequest

if TYPE_CHECKING:
    from pathlib import Path


def file_of(folder: Path, *records: Any) -> Path:
    path = folder / "input.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_a_file(tmp_path: Path) -> None:
    """Its lines are numbered as an editor does; empty ones are none."""
    path = tmp_path / "input.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "a"}\r\n\n  \n{"prompt": "b"}')
    source = Source(path, {"model": "fake:0"})
    survey = source.survey()
    assert survey is not None
    assert survey.count == 2
    assert [(line.number, line.id) for line in source.lines()] == [(1, "1"), (4, "4")]


def test_the_digest(tmp_path: Path) -> None:
    """It is that of the file and of the defaults."""
    path = file_of(tmp_path, {"prompt": "a"})
    first, same = Source(path, {}).survey(), Source(path, {}).survey()
    assert first == same
    assert first != Source(path, {"seed": 1}).survey()
    file_of(tmp_path, {"prompt": "b"})
    assert first != Source(path, {}).survey()


def test_duplicates(tmp_path: Path) -> None:
    """Two lines with one id are refused, with their numbers, before anything is sent."""
    path = file_of(tmp_path, {"id": "a", "prompt": "1"}, {"prompt": "2"}, {"id": "a", "prompt": "3"})
    with pytest.raises(InvalidRequest, match=r"the same id twice: lines 1 and 3 \('a'\): give each line an id"):
        Source(path, {}).survey()


def test_an_id_that_is_another_line_s_number(tmp_path: Path) -> None:
    """A line without an id is called by its number, which is no other line's id."""
    path = file_of(tmp_path, {"prompt": "1"}, {"id": "1", "prompt": "2"})
    with pytest.raises(InvalidRequest, match=r"the same id twice: lines 1 and 2 \('1'\)"):
        Source(path, {}).survey()


@pytest.mark.parametrize("given", [3, None, {"prompt": "a"}, b"a"])
def test_no_source(given: Any) -> None:
    """What cannot be gone through is refused with what can."""
    with pytest.raises(
        InvalidRequest, match=r"the source is a .*: give a path, a stream, or a list of dictionaries or prompts"
    ):
        Source(given, {})


def test_a_stream_of_text() -> None:
    """It has the same lines as one of bytes."""
    stream: Any = io.StringIO('{"id": "a", "prompt": "ü"}\n')
    assert [(line.id, line.values) for line in Source(stream, {}).lines()] == [("a", {"prompt": "ü"})]  # type: ignore[union-attr]


def test_duplicates_of_an_iterable() -> None:
    """What is read once has the second of them fail alone."""
    first, second = Source([{"id": "a", "prompt": "1"}, {"id": "a", "prompt": "2"}], {}).lines()
    assert not isinstance(first, BadLine)
    assert isinstance(second, BadLine)
    assert "its id 'a' is that of line 1" in str(second.error)


@pytest.mark.parametrize("given", [None, 7])
def test_no_line(given: Any) -> None:
    """What is no line fails alone, and says what a line is."""
    (line,) = Source([given], {}).lines()
    assert isinstance(line, BadLine)
    assert "line 1: is not a dictionary" in str(line.error)


@pytest.mark.parametrize("name", ["max_token", "custom_id"])
def test_a_default_that_no_task_has(name: str) -> None:
    """It is refused once, instead of in each line; those of any task are taken."""
    with pytest.raises(InvalidRequest, match=f"{name}=.*: unknown field"):
        Source(["a"], {name: 1})
    Source(["a"], {"dimensions": 3, "top_n": 1, "max_completion_tokens": 2})


def test_a_long_line(tmp_path: Path) -> None:
    """A line over 4 MiB is not read into memory, and the next one is found."""
    path = tmp_path / "input.jsonl"
    path.write_bytes(b'{"prompt": "' + b"x" * (MAX_LINE_BYTES + 10) + b'"}\n{"prompt": "b"}\n')
    long, next_line = Source(path, {}).lines()
    assert isinstance(long, BadLine)
    assert "line 1: has more than 4194304 bytes" in str(long.error)
    assert next_line.number == 2


@pytest.mark.parametrize(("text", "says"), [(b"", "is empty"), (b"\n\n", "is empty"), (None, "cannot be read")])
def test_no_lines(tmp_path: Path, text: bytes | None, says: str) -> None:
    """An input without lines is refused."""
    path = tmp_path / "input.jsonl"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(InvalidRequest, match=says):
        Source(path, {}).survey()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            gzip.compress(b'{"prompt": "a"}\n', mtime=0),
            r"is compressed \(gzip\): decompress it, as by gunzip -c .* > NEW.jsonl",
        ),
        ('{"prompt": "a"}\n'.encode("utf-16"), "is UTF-16: save it as UTF-8"),
        (b'[\n{"prompt": "a"},\n{"prompt": "b"}\n]\n', r"is one JSON array: .* jq -c '.\[\]' .* > NEW.jsonl"),
        (b'\xef\xbb\xbf [{"prompt": "a"}]', "is one JSON array"),
        (b'{\n"prompt": "a"\n}\n', "none of its 3 lines is a JSON object; line 1: not JSON .*: write one JSON object"),
        (b'{"prompt": "a"},\n', "line 1: not JSON .*: remove the comma at its end"),
    ],
)
def test_another_format(tmp_path: Path, text: bytes, says: str) -> None:
    """A file of which no line could be sent is refused as a whole, with what to do."""
    path = tmp_path / "input.jsonl"
    path.write_bytes(text)
    with pytest.raises(InvalidRequest, match=says):
        Source(path, {}).survey()


def test_a_stream_of_another_format() -> None:
    """It is refused at its first line, before anything of it is sent."""
    with pytest.raises(InvalidRequest, match=r"^-: is compressed \(gzip\): decompress it, as by gunzip -c - "):
        next(Source(io.BytesIO(gzip.compress(b"{}", mtime=0)), {}).lines())


def test_what_is_read_once() -> None:
    """A stream, prompts as text, and dictionaries; anything else fails alone."""
    assert Source(io.BytesIO(b""), {}).survey() is None
    assert [line.values for line in Source(io.BytesIO(b'{"prompt": "a"}\n'), {}).lines()] == [{"prompt": "a"}]  # type: ignore[union-attr]
    text, record, wrong = Source(["a", {"prompt": "b"}, 3], {}).lines()
    assert (text.id, record.id) == ("1", "2")
    assert isinstance(wrong, BadLine)
    assert "line 3: is not a dictionary" in str(wrong.error)
