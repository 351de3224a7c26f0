"""celery-mlx: LLM inference on MLX, as Celery tasks.

``app`` is the Celery application (``celery -A tasks worker``), ``generate``, ``embed`` and ``rerank`` are its tasks. They are
made at first use, so that the engine's process, which is a part of this package, never imports Celery.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery import Celery

    from tasks.embed import EmbedTask
    from tasks.generate import GenerateTask
    from tasks.rerank import RerankTask

    app: Celery
    generate: GenerateTask
    embed: EmbedTask
    rerank: RerankTask

__version__ = "0.1.0"
__all__ = ["__version__", "app", "embed", "generate", "rerank"]


class _Package(ModuleType):
    """The class of this module: its ``generate``, ``embed`` and ``rerank`` are tasks, although submodules have these names.

    The import system binds a submodule to its parent as it loads it, and Celery loads ``tasks.generate`` by that name. Thanks to
    a property, ``from tasks import generate`` is the task, whichever was imported first.
    """

    @property
    def app(self) -> Any:
        """The Celery application."""
        from tasks.celery import app as application

        return application

    @property
    def generate(self) -> Any:
        """The inference task, bound to :attr:`app`."""
        return self._task("generate")

    @generate.setter
    def generate(self, _submodule: ModuleType) -> None:
        """Ignore the import system's binding of the submodule."""

    @property
    def embed(self) -> Any:
        """The task that makes vectors, bound to :attr:`app`."""
        return self._task("embed")

    @embed.setter
    def embed(self, _submodule: ModuleType) -> None:
        """Ignore the import system's binding of the submodule."""

    @property
    def rerank(self) -> Any:
        """The task that scores documents, bound to :attr:`app`."""
        return self._task("rerank")

    @rerank.setter
    def rerank(self, _submodule: ModuleType) -> None:
        """Ignore the import system's binding of the submodule."""

    def _task(self, name: str) -> Any:
        """Return a shared task from the application's registry, after its module was loaded."""
        from importlib import import_module

        import_module(f".{name}", __name__)
        names = import_module(".names", __name__)
        found = self.app.tasks[getattr(names, name.upper())]
        names.require_own(self.app, found.name)
        return found


sys.modules[__name__].__class__ = _Package
