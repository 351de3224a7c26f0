"""Every error class is documented as it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tasks import errors
from tasks.errors import GenerationError

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
ROWS = {name: int(status) for name, status in re.findall(r"^\| `(\w+)` \| [^|]+ \| (\d{3}) \|", PAGE, re.MULTILINE)}
CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, GenerationError)
}


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_the_page_has_its_http_status(name: str) -> None:
    """docs/api.md lists the class with the status that it carries; a cancelled request is an end and no row."""
    if name != "Cancelled":
        assert ROWS[name] == CLASSES[name].http_status


def test_codes_tell_classes_apart() -> None:
    """No two classes share a code, by which a reader makes the error again."""
    assert len({error.code for error in CLASSES.values()}) == len(CLASSES)
    assert [errors.error_for(error.code) for error in CLASSES.values()] == list(CLASSES.values())


def test_what_may_succeed_later_says_so_in_http() -> None:
    """A client that retries by status retries what is retryable, and no request that is wrong."""
    for error in CLASSES.values():
        assert not (error.retryable and 400 <= error.http_status < 429)
