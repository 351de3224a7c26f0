"""docs/reliability.md names a test for each promise; each of them is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::([\w:]+)`", PAGE)))


@pytest.mark.parametrize(("path", "name"), NAMED, ids=[f"{path}::{name}" for path, name in NAMED])
def test_the_test_is_there(path: str, name: str) -> None:
    """A test of this name, in its class if the page names one, is in the file."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    classes = {node.name: node.body for node in tree.body if isinstance(node, ast.ClassDef)}
    owner, _, function = name.rpartition("::")
    bodies = [classes[owner]] if owner else [tree.body, *classes.values()]
    assert function in {node.name for body in bodies for node in body if isinstance(node, ast.FunctionDef)}


def test_each_promise_names_one() -> None:
    """No row of a table of promises is without its test."""
    rows = [line for line in PAGE.split("## Under load")[0].splitlines() if line.startswith("| ")]
    promises = [row for row in rows if "shown by" not in row]
    assert len(promises) > 30
    assert [row for row in promises if "::test_" not in row] == []
