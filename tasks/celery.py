"""The Celery application, and nothing else."""

from __future__ import annotations

import sys
from typing import Any

import click
from celery import Celery

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
        print(f"celery-mlx: {error}", file=sys.stderr)
        raise SystemExit(EX_CONFIG) from None


app = Celery("tasks", include=["tasks.generate"])
app.config_from_object(_options())
