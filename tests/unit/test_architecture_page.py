"""The pages name files and modules that exist."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.support import ROOT

if TYPE_CHECKING:
    from pathlib import Path

PAGES = [ROOT / "CONTRIBUTING.md", ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
#: A path of this repository in code, as ``tasks/errors.py`` or ``tests/unit``; ``NAME`` is the reader's to fill in.
PATH = re.compile(r"`((?:tasks|worker_config|celery_mlx|tests|benchmarks|deploy|examples)/[\w./-]*)(?:::\w+)?`")
#: What a program writes there.
WRITTEN = {"benchmarks/results"}
#: A row of a table of docs/architecture.md: a folder, and the modules in it.
ROW = re.compile(r"^\| `([a-z_/]+/)` \| (.*) \|$", re.MULTILINE)
TABLE = re.compile(r"\| (?:folder )?in `(tasks/[a-z_]+/)`(?: \||,).*?\n\n", re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_in_pages_exist(page: Path) -> None:
    """Whoever follows a path of the docs finds a file or a folder."""
    named = set(PATH.findall(page.read_text(encoding="utf-8")))
    assert {path for path in named - WRITTEN if "NAME" not in path and not (ROOT / path).exists()} == set()


def test_modules_in_tables_of_folders_exist() -> None:
    """A word in code in a row of a folder is a module, or a folder, in it."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    found = {table[1]: ROW.findall(table[0]) for table in TABLE.finditer(page)}
    assert {"tasks/worker/", "tasks/engine/"} <= found.keys()
    missing = {
        f"{top}{folder}{name}"
        for top, rows in found.items()
        for folder, modules in rows
        for name in re.findall(r"`([a-z_]+)`", modules)
        if not (ROOT / top / folder / f"{name}.py").is_file() and not (ROOT / top / folder / name).is_dir()
    }
    assert missing == set()
