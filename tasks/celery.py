"""The Celery application, and nothing else."""

from __future__ import annotations

import os
import warnings
from importlib import import_module
from typing import Any

import click
from celery import Celery, signals
from celery.app.utils import Settings
from celery.exceptions import SecurityWarning
from click.core import ParameterSource

from tasks.errors import refuse
from tasks.names import PACKAGE
from worker_config.celeryconfig import celery_options
from worker_config.environment import SettingError
from worker_config.settings import current_settings

#: Options of ``celery`` that name a server.
_TYPED = {"broker": "-b", "result_backend": "--result-backend"}


class _OneRedis(Settings):
    """Celery's view of the options, in which ``REDIS_URL`` alone names Redis.

    Celery's own prefers ``CELERY_BROKER_URL``, ``CELERY_RESULT_BACKEND`` and the like, which may be another application's. Then
    requests went elsewhere than their results, and Celery's result backend took the place of ours.
    """

    broker_url = property(lambda self: self.first("broker_url", "broker_host"))
    broker_read_url = property(lambda self: self.get("broker_read_url") or self.broker_url)
    broker_write_url = property(lambda self: self.get("broker_write_url") or self.broker_url)
    result_backend = property(lambda self: self.first("result_backend"))


def _options() -> dict[str, Any]:
    _refuse_typed_addresses()
    try:
        return celery_options(current_settings())
    except SettingError as error:
        if click.get_current_context(silent=True) is None:
            raise
        refuse(os.EX_CONFIG, str(error), "A setting is wrong")


def _refuse_typed_addresses() -> None:
    context = click.get_current_context(silent=True)
    for name, option in _TYPED.items():
        if context and context.find_root().get_parameter_source(name) is ParameterSource.COMMANDLINE:
            refuse(
                os.EX_CONFIG,
                f"{option}: all parts of the fleet find Redis by REDIS_URL: set that, and leave {option} out",
                "A setting is wrong",
            )


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
# Celery takes no class of one's own, and an attribute of it is an option.
object.__setattr__(app.conf, "__class__", _OneRedis)
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
