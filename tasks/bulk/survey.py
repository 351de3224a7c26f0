"""The look at a file before any line is sent: its digest, its length, and faults of the whole file."""

from __future__ import annotations

import codecs
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.bulk.ids import Ids
from tasks.bulk.line import id_in, parsed, shape_of
from tasks.bulk.texts import texts
from tasks.errors import InvalidRequest
from tasks.messages.encoding import to_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tasks.bulk.line import Shape

#: The most pairs of lines with one id that the error names.
MOST_NAMED = 3
_COMPRESSED = {
    b"\x1f\x8b": ("gzip", "gunzip -c {0} > NEW.jsonl"),
    b"\x28\xb5\x2f\xfd": ("zstd", "zstd -dc {0} > NEW.jsonl"),
    b"BZh": ("bzip2", "bunzip2 -c {0} > NEW.jsonl"),
    b"\xfd7zXZ": ("xz", "xz -dc {0} > NEW.jsonl"),
    b"PK\x03\x04": ("zip", "unzip -p {0} > NEW.jsonl"),
}


@dataclass(frozen=True, slots=True)
class Survey:
    """The findings in a file.

    Args:
        digest: of its bytes and of the defaults.
        count: how many lines it has.
        shape: that of its first line which can be read.
    """

    digest: str
    count: int
    shape: Shape


def survey(path: Path, defaults: Mapping[str, Any]) -> Survey:
    """Read a file once.

    Raises:
        InvalidRequest: it cannot be read, is empty, none of its lines is a JSON object, or two lines have one id.
    """
    digest = hashlib.blake2b(to_json(defaults, sort_keys=True).encode(), digest_size=8)
    count = 0
    ids, shape, why_not = Ids(), None, ""
    twice = _Twice()
    try:
        with path.open("rb") as file:
            for number, text in texts(file, digest):
                if not count:
                    refuse_format(text, str(path))
                count += 1
                try:
                    record = parsed(text) if text is not None else None
                except InvalidRequest as error:
                    record, why_not = None, why_not or f"line {number}: {error}"
                if record is None:
                    continue
                shape = shape or shape_of(record)
                line_id = id_in(record) or str(number)
                twice.note(line_id, ids.first(line_id, number), number)
    except OSError as error:
        raise InvalidRequest(f"{path}: cannot be read ({error.strerror})") from None
    twice.refuse(path)
    if not count:
        raise InvalidRequest(f"{path}: is empty: write one JSON object in each line")
    if shape is None and why_not:
        raise InvalidRequest(f"{path}: none of its {count:,} lines is a JSON object; {why_not}")
    return Survey(digest.hexdigest(), count, shape or "plain")


def refuse_format(text: bytes | None, name: str) -> None:
    """Refuse a file that begins like one of another format, in which every line would fail alone.

    Args:
        text: the first line.
        name: of the file.

    Raises:
        InvalidRequest: it does.
    """
    text = text or b""
    for magic, (kind, command) in _COMPRESSED.items():
        if text.startswith(magic):
            raise InvalidRequest(f"{name}: is compressed ({kind}): decompress it, as by {command.format(name)}")
    if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InvalidRequest(f"{name}: is UTF-16: save it as UTF-8, as by iconv -f UTF-16 -t UTF-8 {name} > NEW.jsonl")
    if text.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
        raise InvalidRequest(
            f"{name}: is one JSON array: write one JSON object in each line, as by jq -c '.[]' {name} > NEW.jsonl"
        )


class _Twice:
    """Lines whose id an earlier line has."""

    def __init__(self) -> None:
        self._count = 0
        self._named: list[str] = []

    def note(self, line_id: str, first: int, number: int) -> None:
        """The line ``number`` has this id, and ``first`` was the first that had it."""
        if first == number:
            return
        self._count += 1
        if len(self._named) < MOST_NAMED:
            self._named.append(f"lines {first} and {number} ({line_id!r:.60})")

    def refuse(self, path: Path) -> None:
        """Name them, if there are any.

        Raises:
            InvalidRequest: there are.
        """
        if self._count:
            more = f", and {self._count - len(self._named)} more" if self._count > len(self._named) else ""
            raise InvalidRequest(
                f"{path}: the same id twice: {', '.join(self._named)}{more}: give each line an id of its own"
            )
