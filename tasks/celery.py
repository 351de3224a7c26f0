"""The Celery application, and nothing else."""

from __future__ import annotations

import os
import warnings
from importlib import import_module
from typing import Any

import click
from celery import Celery, signals
from celery.exceptions import SecurityWarning

from tasks.errors import refuse
from tasks.names import PACKAGE
from worker_config.celeryconfig import celery_options
from worker_config.environment import SettingError
from worker_config.settings import current_settings


def _options() -> dict[str, Any]:
    try:
        return celery_options(current_settings())
    except SettingError as error:
        if click.get_current_context(silent=True) is None:
            raise
        refuse(os.EX_CONFIG, str(error), "A setting is wrong")


def _worker_options() -> list[Any]:
    """The options for settings on the worker's command line, which override the environment; none outside of a command."""
    if click.get_current_context(silent=True) is None:
        return []
    from celery.bin.base import CeleryOption

    options = {
        "--models": ("NAMES", "Models to load at the start and to keep loaded, separated by commas."),
        "--chip": ("NAME", "Chip to assume in place of the detected one, such as 'Apple M2 Pro'; for simulations."),
        "--gpu-cores": ("N", "Number of GPU cores to assume."),
        "--memory-gb": ("N", "Memory to assume, in GiB."),
    }
    return [
        CeleryOption([name], metavar=metavar, help=about, help_group="Models and hardware")
        for name, (metavar, about) in options.items()
    ]


if click.get_current_context(silent=True) is not None:
    # Celery warns root of unpickling, which this application never does; its six lines hide the line that matters.
    warnings.filterwarnings("ignore", category=SecurityWarning)

app = Celery("tasks", include=[f"{PACKAGE}.generate", f"{PACKAGE}.embed", f"{PACKAGE}.rerank"])
app.config_from_object(_options())
app.user_options["worker"] = _worker_options()


@signals.import_modules.connect(sender=app)
def _check_flower(**_: Any) -> None:
    """Check Flower's port and Redis, when it has read its options. It has no signal of its own."""
    context = click.get_current_context(silent=True)
    if context is not None and context.info_name == "flower":
        flower = import_module(".cli.flower", __package__)
        flower.require_port()
        flower.require_redis(app)
