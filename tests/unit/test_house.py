"""The bounds of CONTRIBUTING.md on modules and functions, and the modules that are imported by a string."""

from __future__ import annotations

import ast
import re
import tomllib
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
#: Who names a module of a higher floor in a string: Celery loads the application and its parts by their names, and a producer
#: has no worker until a process becomes one.
UPWARDS = {
    "celery": {"tasks.cli.flower"},
    "client/result": {"tasks.celery"},
    "generate": {"tasks.worker.celery.request"},
    "roles": {"tasks.sweep", "tasks.worker.celery.body", "tasks.worker.celery.lifecycle", "tasks.worker.eager"},
}
#: Who reads the environment beside the command line and the demo: the project's application.
READERS_OF_THE_ENVIRONMENT = {"celery.py"}
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


def test_settings_travel_as_arguments() -> None:
    """The environment is read where a process or an application begins; everything else is given what it needs."""
    readers = {
        path.relative_to(ROOT / "tasks").as_posix()
        for path in modules("tasks")
        if re.search(r"\bcurrent_settings\(\)", path.read_text())
    }
    assert {name for name in readers if not name.startswith(("cli/", "demo/"))} == READERS_OF_THE_ENVIRONMENT


def names_in_strings(path: Path) -> Iterator[str]:
    """The modules of this project that a module names in a string: ``".worker.eager"`` or ``f"{PACKAGE}.celery:app"``."""
    text = path.read_text()
    package = ".".join(path.relative_to(ROOT).parent.parts)
    yield from (f"tasks{name}" for name in re.findall(r'f"\{PACKAGE\}((?:\.[a-z_]+)+)[":]', text))
    yield from (
        resolve_name(name, "tasks.client.request") for name in re.findall(r'KeywordSignature\("([a-z_.]+)"', text)
    )
    if "import_module(" in text:
        yield from (
            resolve_name(name, package) for name in re.findall(r'(?<!KeywordSignature\()"((?:\.[a-z_]+)+)"', text)
        )


@cache
def floors() -> dict[str, int]:
    """The floor of each room, by the first contract in pyproject.toml."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = contracts[0]["layers"][::-1]
    return {room.strip(): floor for floor, rooms in enumerate(layers) for room in re.split(r"[:|]", rooms)}


def test_what_is_named_in_a_string_exists_and_is_below() -> None:
    """No import contract sees these names: each is a module's, and only a few lead to a higher floor."""
    upwards: dict[str, set[str]] = {}
    for path in modules("tasks"):
        parts = path.relative_to(ROOT / "tasks").with_suffix("").parts
        for name in names_in_strings(path):
            base = ROOT.joinpath(*name.split("."))
            assert base.with_suffix(".py").is_file() or (base / "__init__.py").is_file(), (path, name)
            room, own = name.split(".")[1], parts[0]
            if room != own and own in floors() and floors()[room] >= floors()[own]:
                upwards.setdefault("/".join(parts), set()).add(name)
    assert upwards == UPWARDS
