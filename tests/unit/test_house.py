"""The bounds of CONTRIBUTING.md on modules and functions, and the modules that are imported by a string."""

from __future__ import annotations

import ast
import re
from functools import cache
from importlib.util import resolve_name
from typing import TYPE_CHECKING

from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_MODULE_LINES = 300
MAX_FUNCTION_LINES = 50
#: The benchmarks that import tests, with the reason in each.
IMPORTERS_OF_TESTS = {"benchmarks/contenders/engine.py"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def modules(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def long_functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, Function):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                yield f"{path.relative_to(ROOT)}:{node.name}", lines


def test_no_module_is_long() -> None:
    """A module with more lines has more than one noun."""
    counted = {path: len(path.read_text().splitlines()) for path in modules("tasks", "worker_config")}
    assert {path.name: lines for path, lines in counted.items() if lines > MAX_MODULE_LINES} == {}


def test_no_function_is_long() -> None:
    """A function with more lines does more than one thing."""
    found = dict(
        pair for path in modules("tasks", "worker_config", "benchmarks", "tests") for pair in long_functions(path)
    )
    assert found == {}


def test_tests_import_benchmarks_and_not_the_other_way_round() -> None:
    """What both need is in benchmarks/parts."""
    imported = re.compile(r"^\s*(from|import) tests\b", re.MULTILINE)
    found = {str(path.relative_to(ROOT)) for path in modules("benchmarks") if imported.search(path.read_text())}
    assert found == IMPORTERS_OF_TESTS


def places(path: Path, name: str) -> Iterator[Path]:
    """Where a relative module may be: beside its module, or beside :class:`KeywordSignature`, which takes such names."""
    above = len(name) - len(name.lstrip("."))
    for folder in (path.parent, ROOT / "tasks" / "client"):
        yield [folder, *folder.parents][above - 1].joinpath(*name.strip(".").split("."))


def test_what_is_imported_by_a_string_exists() -> None:
    """No import contract sees these."""
    found = {}
    for path in modules("tasks"):
        package = ".".join(path.relative_to(ROOT).parent.parts)
        if "import_module(" in path.read_text():
            for text in re.findall(r'(?<!f)"(\.+[a-z][a-z_.]*)"', path.read_text()):
                found[resolve_name(text, package)] = any(
                    base.with_suffix(".py").is_file() or (base / "__init__.py").is_file() for base in places(path, text)
                )
    assert found
    assert all(found.values()), found
