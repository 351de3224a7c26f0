"""The sub-commands of ``celery -A celery_mlx``. Celery's command line loads them in every project, before the application.

Each is loaded when it is typed: before that nobody knows whether ``tasks`` is this project's.
"""

from __future__ import annotations

import os
import re
import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from types import ModuleType


class _LastResort(MetaPathFinder, Loader):
    """Has ``celery -A tasks`` be ``celery -A celery_mlx`` where no project and no other distribution has a ``tasks``."""

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname == "tasks" else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        package = import_module("celery_mlx")
        self._spec = package.__spec__
        return package

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # which the import system has just replaced


def _open_streams() -> None:
    """Open the standard streams that are closed, on nothing.

    Without standard error Celery ends with status 1 and no word, and the next socket would be standard output.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = Path(os.devnull).open(mode)  # noqa: SIM115  (for as long as the process lives)
            os.set_inheritable(stream.fileno(), True)  # engines and commands that are started have them too
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


_open_streams()
if re.search(r" (-A[ =]?|--app[ =])tasks( |$)", " ".join(sys.argv)):
    sys.meta_path.append(_LastResort())
if {"control", "inspect"} & set(sys.argv):
    import_module("celery_mlx.worker.celery.control")  # registers ours with Celery's


class _Lazy(click.Command):
    """A command that is loaded at its first use."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """The context of the command itself."""
        assert self.name is not None
        command: click.Command = getattr(import_module(f"celery_mlx.cli.{self.name}"), self.name)
        command.params.extend(param for param in self.params if param not in command.params)  # an application's own
        return command.make_context(info_name, args, parent, **extra)


ask = _Lazy("ask", help="Ask a model, and print its answer as it comes.")
bulk = _Lazy("bulk", help="Answer a file of requests into a file, on idle slots.")
doctor = _Lazy("doctor", help="Check this machine, Redis, MLX, models and disk.")
fleet = _Lazy("fleet", help="Show workers and queues.")
gateway = _Lazy("gateway", help="Answer OpenAI's clients over HTTP. Any number of gateways may run side by side.")
keys = _Lazy("keys", help="Make, list and revoke the API keys of the gateway.")
metrics = _Lazy("metrics", help="Serve the fleet's metrics to Prometheus, at /metrics. One is enough for the fleet.")
models = _Lazy("models", help="List models, and where they fit and run.")
service = _Lazy("service", help="Run a part of the fleet as a service.")
up = _Lazy("up", help="Run a whole fleet here, for development.")
