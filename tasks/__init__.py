"""celery-mlx: LLM inference on MLX, as Celery tasks.

``app`` is the Celery application (``celery -A tasks worker``), ``generate`` its task. Both are made at first use, so that the
engine's process, which is a part of this package, never imports Celery.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery import Celery

    from tasks.generate import GenerateTask

    app: Celery
    generate: GenerateTask

__version__ = "0.1.0"
__all__ = ["__version__", "app", "generate"]


class _Package(ModuleType):
    """This module's class: ``tasks.generate`` is the task, although a submodule has the same name.

    The import system binds a submodule to its parent when it loads it, and Celery loads ``tasks.generate`` by that name;
    a property keeps ``from tasks import generate`` the task, whatever was imported first.
    """

    @property
    def app(self) -> Any:
        """The Celery application."""
        from tasks.celery import app as application

        return application

    @property
    def generate(self) -> Any:
        """The inference task, bound to :attr:`app`."""
        from importlib import import_module

        # A shared task is in an application's registry once its module is loaded.
        name = import_module(".generate", __name__).generate.name
        return self.app.tasks[name]

    @generate.setter
    def generate(self, _submodule: ModuleType) -> None:
        """The import system's binding of the submodule is not wanted."""


sys.modules[__name__].__class__ = _Package
