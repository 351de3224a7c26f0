"""The Celery application, and nothing else."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import click
from celery import Celery, signals

from tasks.errors import pointer
from worker_config.celeryconfig import celery_options
from worker_config.environment import SettingError
from worker_config.settings import current_settings

#: sysexits.h: the configuration is wrong.
EX_CONFIG = 78


def _options() -> dict[str, Any]:
    try:
        return celery_options(current_settings())
    except SettingError as error:
        if click.get_current_context(silent=True) is None:
            raise
        # Celery's command line prints the traceback of any Exception that loading an application raises.
        print(f"celery-mlx: {error}{pointer('A setting is wrong')}", file=sys.stderr)
        raise SystemExit(EX_CONFIG) from None


def _worker_options() -> list[Any]:
    """Settings that may be typed; tasks.worker.lifecycle puts them over the environment's. None where nothing was typed."""
    if click.get_current_context(silent=True) is None:
        return []
    from celery.bin.base import CeleryOption

    options = {
        "--models": ("NAMES", "Load these models at the start and keep them; separated by commas."),
        "--chip": ("NAME", "Be a Mac with this chip, as in 'Apple M2 Pro': for virtual machines and simulations."),
        "--gpu-cores": ("N", "Have so many GPU cores."),
        "--memory-gb": ("N", "Have so much memory (GiB)."),
    }
    return [
        CeleryOption([name], metavar=metavar, help=about, help_group="Models and hardware")
        for name, (metavar, about) in options.items()
    ]


app = Celery("tasks", include=["tasks.generate"])
app.config_from_object(_options())
app.user_options["worker"] = _worker_options()


@signals.import_modules.connect(sender=app)
def _look_at_port(**_: Any) -> None:
    """Flower has read its options and is about to listen: it has no signal of its own."""
    context = click.get_current_context(silent=True)
    if context is not None and context.info_name == "flower":
        import_module("tasks.cli.flower").require_port()
