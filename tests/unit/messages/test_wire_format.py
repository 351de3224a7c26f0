"""docs/wire-format.md says what the code does."""

from __future__ import annotations

import json
import re
from dataclasses import fields

import pytest

from tasks import errors
from tasks.messages.journal import TYPES, decode, encode
from tasks.server import keys
from tests.support import ROOT

PAGE = (ROOT / "docs" / "wire-format.md").read_text(encoding="utf-8")
EXAMPLES = re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("name", TYPES)
def test_fields(name: str) -> None:
    """Each type of entry has its section, which names every field."""
    section = re.search(rf"^### `{name}`.*?(?=^##)", PAGE, re.DOTALL | re.MULTILINE)
    assert section
    named = {
        word for row in re.findall(r"^\| (`.*?) \|", section[0], re.MULTILINE) for word in re.findall(r"`(\w+)`", row)
    }
    assert named == {field.name for field in fields(TYPES[name])} - {"attempt"}


def test_examples() -> None:
    """The example entries are entries, as they are written: every type, and every field."""
    assert EXAMPLES
    lines = EXAMPLES[1].splitlines()
    assert [json.loads(line)["type"] for line in lines] == list(TYPES)
    for line in lines:
        entry = decode(line)
        assert entry is not None
        assert json.loads(encode(entry)) == json.loads(line)


def test_codes() -> None:
    """Every error code that is sent is listed, and no other; classes elsewhere never leave their process."""
    listed = re.search(r"^Codes: (.*?)\.$", PAGE, re.DOTALL | re.MULTILINE)
    assert listed
    sent = {code for code, kind in errors.by_code(errors.GenerationError).items() if kind.__module__ == errors.__name__}
    assert set(re.findall(r"`(\w+)`", listed[1])) == sent


def test_keys() -> None:
    """The keys on the page are the keys in the code."""
    for key in (keys.stream("{id}"), keys.cancel("{id}"), keys.LEDGER):
        assert f"`{key}`" in PAGE
