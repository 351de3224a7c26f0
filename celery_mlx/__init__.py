"""The distribution's name in a checkout: ``celery_mlx.X`` is ``tasks.X``, and ``celery_mlx.worker_config`` is ``worker_config``.

An installed wheel holds the code itself under this name (``setup.py``), and nothing of this file. Here, where the code lies in
``tasks/`` and ``worker_config/``, each of its modules exists once in a process, whichever name it is asked for by:

- Where this project's ``tasks`` was imported first, as by ``celery -A tasks``, this name is an alias of it.
- Otherwise the modules are loaded under this name, and ``tasks`` becomes the alias; but not where a project has a ``tasks`` of
  its own, which is never touched. An ``import tasks.errors`` in our files is answered with ``celery_mlx.errors``.
"""

from __future__ import annotations

import builtins
import importlib
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, ModuleType

    from tasks import __version__ as __version__
    from tasks import app as app
    from tasks.embed import EmbedTask
    from tasks.generate import GenerateTask
    from tasks.rerank import RerankTask

    # Of the same names there are modules, which mypy may take an import for.
    embed: EmbedTask
    generate: GenerateTask
    rerank: RerankTask

_ROOT = Path(__file__).resolve().parent.parent
#: The folders of the code, which are its names in a checkout, and its names everywhere else; the longer name first.
_NAMES = {"worker_config": "celery_mlx.worker_config", "tasks": "celery_mlx"}


def _is_ours(spec: ModuleSpec | None, folder: str) -> bool:
    return (
        spec is not None and spec.origin is not None and Path(spec.origin).resolve() == _ROOT / folder / "__init__.py"
    )


def _loaded_as(folder: str) -> str | None:
    """The name that this folder's code is loaded under in this process, if it is."""
    for name in (folder, _NAMES[folder]):
        module = sys.modules.get(name)
        if module is not None and module.__name__ == name and (name != folder or _is_ours(module.__spec__, folder)):
            return name
    return None


def _belongs_to_another(folder: str) -> bool:
    """Whether a project has something of this name of its own."""
    spec = PathFinder.find_spec(folder)
    return spec is not None and not _is_ours(spec, folder)


class _Finder(MetaPathFinder):
    """Finds our modules by each of their names."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        for folder, name in _NAMES.items():
            for asked in (name, folder):
                if fullname == asked or fullname.startswith(f"{asked}."):
                    return self._find(folder, asked, fullname.removeprefix(asked))
        return None

    def _find(self, folder: str, asked: str, rest: str) -> ModuleSpec | None:
        loaded_as = _loaded_as(folder)
        if asked == folder:
            if loaded_as is None or loaded_as == folder:
                return None  # as any module
            is_alias = sys.modules.get(folder) is sys.modules[loaded_as] if rest else not _belongs_to_another(folder)
            return ModuleSpec(asked + rest, _Alias(loaded_as + rest)) if is_alias else None
        if loaded_as == folder:
            return ModuleSpec(asked + rest, _Alias(folder + rest))
        place = _ROOT / folder / Path(*rest.split("."))
        return _spec(asked + rest, place / "__init__.py") or _spec(asked + rest, place.with_suffix(".py"))


def _spec(name: str, path: Path) -> ModuleSpec | None:
    return spec_from_file_location(name, path, loader=_Loader(name, str(path))) if path.is_file() else None


class _Alias(Loader):
    """Gives a module that goes by another name."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._name)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # which the import system has just replaced


class _Loader(SourceFileLoader):
    """Loads one of our files under a name of this package."""

    def exec_module(self, module: ModuleType) -> None:
        _execute(SourceFileLoader.get_code(self, self.name), module.__dict__)

    def get_code(self, fullname: str) -> CodeType:
        """What ``python -m`` runs: the same, in the namespace that it has made."""
        return compile(
            f"from celery_mlx import _execute, _code_of\n_execute(_code_of({fullname!r}), globals())", "-m", "exec"
        )


def _code_of(name: str) -> CodeType | None:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert isinstance(spec.loader, SourceFileLoader)
    return SourceFileLoader.get_code(spec.loader, name)


def _execute(code: CodeType | None, namespace: dict[str, Any]) -> None:
    assert code is not None
    namespace["__builtins__"] = _BUILTINS
    exec(code, namespace)  # noqa: S102  (what every loader does)


def _import(
    name: str, globals_: Any = None, locals_: Any = None, fromlist: Sequence[str] = (), level: int = 0
) -> ModuleType:
    """The statement ``import`` in our files, where they are loaded under this name."""
    top, dot, rest = name.partition(".")
    if level == 0 and top in _NAMES:
        name = _NAMES[top] + dot + rest
    return builtins.__import__(name, globals_, locals_, fromlist, level)


_BUILTINS = {**vars(builtins), "__import__": _import}


def lend_tasks() -> None:
    """Have ``include=["tasks.generate"]`` lead to the task beside a project's own ``tasks``, unless that has a ``generate``.

    The same with ``tasks.embed`` and ``tasks.rerank``.
    """
    spec = PathFinder.find_spec("tasks")
    if spec is None or _is_ours(spec, "tasks"):
        return
    inside = spec.submodule_search_locations
    for name in ("generate", "embed", "rerank"):
        if inside is None or PathFinder.find_spec(f"tasks.{name}", inside) is None:
            sys.modules.setdefault(f"tasks.{name}", importlib.import_module(f"celery_mlx.{name}"))


sys.meta_path.insert(0, _Finder())
if _loaded_as("tasks") == "tasks":
    sys.modules[__name__] = sys.modules["tasks"]
else:
    _execute(SourceFileLoader("celery_mlx", str(_ROOT / "tasks" / "__init__.py")).get_code("celery_mlx"), globals())
