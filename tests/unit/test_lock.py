"""The lock files hold what pyproject.toml asks for, so that a fresh installation is complete."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.support import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def wanted(extra: str) -> list[Requirement]:
    """The project's own requirements and those of an extra, with the extras that it includes."""
    found = []
    for line in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"][extra]):
        requirement = Requirement(line)
        if requirement.name == PROJECT["name"]:
            for included in requirement.extras:
                found += wanted(included)
        else:
            found.append(requirement)
    return found


def locked(name: str) -> dict[str, list[Version]]:
    """The versions in a lock file; more than one where Python versions differ."""
    versions: dict[str, list[Version]] = {}
    text = (ROOT / name).read_text(encoding="utf-8")
    for package, version in re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", text, re.MULTILINE):
        versions.setdefault(package, []).append(Version(version))
    return versions


@pytest.mark.parametrize(("extra", "name"), [("dev", "requirements.lock"), ("mkl", "requirements-mkl.lock")])
def test_the_lock_has_all_that_is_asked_for(extra: str, name: str) -> None:
    """Every requirement has a locked version that satisfies it; ``make lock`` adds what is missing."""
    versions = locked(name)
    missing = [
        str(requirement)
        for requirement in wanted(extra)
        if not any(map(requirement.specifier.contains, versions.get(requirement.name, [])))
    ]
    assert not missing, f"not in {name}: {missing}; run make lock"


def test_the_two_locks_agree() -> None:
    """What both files hold is the same version, so that the second does not undo the first."""
    first, second = locked("requirements.lock"), locked("requirements-mkl.lock")
    assert {name: versions for name, versions in second.items() if name in first and first[name] != versions} == {}


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-mkl.lock"])
def test_the_lock_names_no_index(name: str) -> None:
    """No address of an index is written down, and every package has its hashes."""
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "://" not in text
    assert "--index-url" not in text
    for block in re.split(r"\n(?=[a-z])", text)[1:]:
        assert "--hash=sha256:" in block, block.splitlines()[0]
