"""What an installation imports is what pyproject.toml brings: nothing may be there only because of another extra."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from importlib.metadata import distribution, packages_distributions
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: Runs its second argument as if the modules of the first were not installed.
ALONE = """
import json, sys

absent = set(json.loads(sys.argv[1]))

class Only:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return self.finder.find_spec(name, path, target) if path is not None or name not in absent else None

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(Only, sys.meta_path)
exec(sys.argv[2])
"""
#: Nobody is at the address: the transport and the backend are made before that shows.
PRODUCER = """
from celery_mlx import app, embed, generate
from celery_mlx.errors import BrokerUnavailable
app.connection_for_write(), app.backend
try:
    generate.delay(prompt="x", model="fake:1")
except BrokerUnavailable:
    print("there")
"""


def absent(extras: Iterable[str]) -> set[str]:
    """The modules of all distributions here but those that this project's requirements, with these extras, lead to."""
    wanted = list(PROJECT["dependencies"])
    for extra in extras:
        wanted += PROJECT["optional-dependencies"][extra]
    known: set[tuple[str, str]] = set()
    open_ = [pair for text in wanted for pair in needs(Requirement(text), "")]
    while open_:
        pair = open_.pop()
        if pair not in known:
            known.add(pair)
            name, extra = pair
            open_ += [more for text in distribution(name).requires or () for more in needs(Requirement(text), extra)]
    names = {"celery-mlx", *(name for name, _ in known)}
    modules = packages_distributions()
    return {module for module, owners in modules.items() if not names & {canonicalize_name(owner) for owner in owners}}


def needs(requirement: Requirement, extra: str) -> Iterator[tuple[str, str]]:
    """What a requirement of a distribution with this extra asks for here: names, each with an extra of its own or none."""
    if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
        for wanted in ("", *requirement.extras):
            yield canonicalize_name(requirement.name), wanted


@pytest.mark.parametrize(
    ("extras", "program"),
    [
        ((), PRODUCER),
        ((), "from celery_mlx.cli import ask, bulk, fleet, keys, metrics; print('there')"),
        (("web",), "from celery_mlx.gateway import application; print('there')"),
        (("flower",), "import flower.app; from celery_mlx.cli import flower; print('there')"),
        (
            ("worker",),
            "from celery_mlx.engine.model import mlx; from celery_mlx.worker import worker; print('there')",
        ),
    ],
    ids=["producer", "commands", "gateway", "Flower", "worker"],
)
def test_nothing_comes_from_elsewhere(extras: tuple[str, ...], program: str) -> None:
    """A producer without an extra sends (to nobody here), and each part can be imported with its own extra alone."""
    done = subprocess.run(
        [sys.executable, "-c", ALONE, json.dumps(sorted(absent(extras))), program],
        env={"REDIS_URL": "redis://127.0.0.1:1/0", "PATH": "", "HOME": "/nonexistent"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout == "there\n", done.stderr


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process runs all tests")
@pytest.mark.xdist_group("grouped")
def test_pytest_keeps_groups_of_tests_together(request: pytest.FixtureRequest) -> None:
    """A module's workers are started once, not once in each process. pytest-xdist 3.8 notes a group at the end of a test's id."""
    assert request.node.nodeid.endswith("@grouped")
