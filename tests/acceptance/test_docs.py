"""What README and docs tell people to run is run, or says in a comment before it why not (``<!-- not run: ... -->``)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from tests.support import ROOT

if TYPE_CHECKING:
    from tests.conftest import StartWorker

pytestmark = pytest.mark.xdist_group("docs")

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(
    r"(?:^<!-- not run: (?P<why>[^\n]+?) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
#: What is shown, and not run.
SHOWN = {"text", "json", "toml", "ini", "yaml"}
COMMAND = re.compile(r"\bcelery -A tasks [^`\n|#&>]+")
TEST = re.compile(r"`(tests/[\w/]+\.py)::([\w:]+)`")


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: Path
    line: int
    language: str
    code: str
    why_not: str


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, match.start("code")) + 1, match["language"], match["code"], match["why"] or "")
        for match in FENCE.finditer(text)
    ]


BLOCKS = [block for page in PAGES for block in blocks(page)]
SHELL = [block for block in BLOCKS if block.language == "sh" and not block.why_not]
PYTHON = [block for block in BLOCKS if block.language == "python" and not block.why_not]


def named(block: Block) -> str:
    return f"{block.page.name}:{block.line}"


@pytest.fixture(scope="module")
def served(shared_worker: StartWorker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One worker with the bundled model, for all blocks; the folder in which Python's run."""
    shared_worker("-c", "20", env={"CELERY_MLX_MODELS": "smollm2-135m", "CELERY_MLX_ALLOW_FAKE": ""})
    return tmp_path_factory.mktemp("docs")


def run(command: list[str], folder: Path, about: str) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert ended.returncode == 0, f"{about}\n{ended.stdout}{ended.stderr}"


@pytest.mark.parametrize("block", PYTHON, ids=named)
def test_python(block: Block, served: Path) -> None:
    """Each block runs as a program of its own against a real worker."""
    run([sys.executable, "-W", "error", "-c", block.code], served, named(block))


@pytest.mark.parametrize("block", SHELL, ids=named)
@pytest.mark.usefixtures("served")
def test_shell(block: Block) -> None:
    """Each block runs in the checkout, as a shell runs it, to its end and without an error."""
    run(["bash", "-euo", "pipefail", "-c", block.code], ROOT, named(block))


def test_every_block_says_what_it_is() -> None:
    """A block is shell, Python or something that is only shown; commands stand in blocks, where they are seen here."""
    assert [named(block) for block in BLOCKS if block.language not in {"sh", "python", *SHOWN}] == []
    indented = re.compile(r"^ {4}(celery -A|pip|make|git|python|docker|REDIS_URL)\b", re.MULTILINE)
    assert [page.name for page in PAGES if indented.search(page.read_text(encoding="utf-8"))] == []
    assert len(SHELL) >= 3
    assert len(PYTHON) >= 8


def test_every_command_line_is_understood() -> None:
    """Whether it is run or not: each of our commands exists, with every option that is written there."""
    from celery.bin.celery import celery

    found = {line for page in PAGES for line in COMMAND.findall(page.read_text(encoding="utf-8"))}
    assert len(found) > 15
    context = click.Context(celery)
    for line in sorted(found):
        words = [word for word in line.split()[3:] if not word.startswith("[")]
        assert_understood(celery, context, words, line)


def itself(command: click.Command) -> click.Command:
    """The command, where it is one of ours that is loaded at its first use."""
    if type(command).__module__ != "celery_mlx_commands":
        return command
    found = getattr(import_module(f"celery_mlx.cli.{command.name}"), str(command.name))
    assert isinstance(found, click.Command)
    return found


def assert_understood(command: click.Command, context: click.Context, words: list[str], line: str) -> None:
    """Each word before the first option names a sub-command, as long as there are any; each option is the last one's."""
    known = options(command)
    for word in words:
        if word == "--":
            return
        name = word.partition("=")[0].rstrip(".,:;)")
        if name.startswith("-"):
            assert name in known, f"{line!r}: {command.name} has no {name}"
        elif isinstance(command, click.Group):
            inner = command.get_command(context, name)
            assert inner is not None, f"{line!r}: {command.name} has no {name}"
            command = itself(inner)
            known = options(command)


def options(command: click.Command) -> set[str]:
    return {"--help", *(name for param in command.params for name in (*param.opts, *param.secondary_opts))}


def test_every_make_target_exists() -> None:
    """A page names no target that the Makefile has not."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named_there = {
        name
        for page in PAGES
        for name in re.findall(r"(?:`|^|&& )make ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert named_there <= targets, named_there - targets


def test_every_test_that_a_page_names_exists() -> None:
    """A promise that names its test keeps it."""
    promises = [promise for page in PAGES for promise in TEST.findall(page.read_text(encoding="utf-8"))]
    assert len(promises) > 20
    for file, path in promises:
        source = (ROOT / file).read_text(encoding="utf-8")
        *classes, function = path.split("::")
        assert re.search(rf"^\s*def {function}\(", source, re.MULTILINE), f"{file} has no {function}"
        assert all(re.search(rf"^class {kind}\b", source, re.MULTILINE) for kind in classes), f"{file} has no {classes}"
