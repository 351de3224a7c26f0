"""The sweep: finds dead workers and lost messages, and gives the work to others. It runs in beat's process."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from celery import Celery

    from tasks.sweep.sweep import Sweep


def start_sweep(app: Celery) -> Sweep:
    """Start the sweep of this app's fleet, on a thread of its own that ends with the process.

    Raises:
        BrokerUnavailable: the app's broker is not Redis.
    """
    from tasks.sweep.sweep import Sweep
    from tasks.worker.logs import use_json_if_wanted
    from worker_config.settings import current_settings

    settings = current_settings()
    use_json_if_wanted(logging.getLogger())
    sweep = Sweep.of(app, sweep_s=settings.sweep_s, dead_after_s=settings.dead_after_s)
    sweep.start()
    return sweep
