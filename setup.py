"""How the code of ``tasks/`` and ``worker_config/`` is installed: in a wheel it is the package ``celery_mlx``.

People's projects have a ``tasks`` and a ``worker_config`` of their own: a wheel brings neither. The imports in what is copied
into it get the new names. An editable installation leaves the code where it is, and ``celery_mlx/`` gives it the same name there.
"""

from __future__ import annotations

import ast
import shutil
import sys
from pathlib import Path
from typing import Any

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

FOLDERS = {"tasks": "celery_mlx", "worker_config": "celery_mlx.worker_config"}


class BuildPy(build_py):
    """Copies modules, and changes the imports of those that get another name."""

    def run(self) -> None:
        """Copy all, into a folder in which nothing of an earlier build is left."""
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()

    def build_module(self, module: Any, module_file: Any, package: Any) -> Any:
        """Copy one module."""
        outfile, copied = super().build_module(module, module_file, package)
        path = Path(outfile)
        if copied and not self.editable_mode:
            path.write_text(renamed(path.read_text(encoding="utf-8")), encoding="utf-8")
        return outfile, copied


def renamed(source: str) -> str:
    """A module's source with the new names of what it imports; everything else of it stays."""
    lines = source.splitlines(keepends=True)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [each.name for each in node.names]
        else:
            continue
        for name in names:
            folder = name.partition(".")[0]
            if folder in FOLDERS:
                if isinstance(node, ast.Import) and not all(each.asname for each in node.names):
                    raise ValueError(f"line {node.lineno}: import {name} binds {folder!r}: use from … import, or as")
                line, at = lines[node.lineno - 1], node.col_offset
                lines[node.lineno - 1] = line[:at] + line[at:].replace(name, FOLDERS[folder] + name[len(folder) :], 1)
    return "".join(lines)


def installed_packages() -> dict[str, str]:
    """The packages of a wheel, and the folders that they come from."""
    found = {}
    for folder, name in FOLDERS.items():
        for package in [folder, *(f"{folder}.{inner}" for inner in find_packages(folder))]:
            found[name + package[len(folder) :]] = package.replace(".", "/")
    return found


if __name__ == "__main__":
    is_editable = "editable_wheel" in sys.argv
    packages = installed_packages()
    setup(
        packages=find_packages(include=["celery_mlx", "tasks*", "worker_config*"]) if is_editable else list(packages),
        package_dir={} if is_editable else packages,
        py_modules=["celery_mlx_commands"],
        cmdclass={"build_py": BuildPy},
    )
