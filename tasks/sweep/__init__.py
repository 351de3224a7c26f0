"""The sweep: finds dead workers and lost messages, and gives the work to others. It runs in beat's process."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from celery import Celery

    from tasks.sweep.sweep import Sweep

PARENT_LOOK_S = 0.5


def start_sweep(app: Celery) -> Sweep:
    """Start the sweep of this app's fleet, on a thread of its own that ends with the process.

    A beat whose Redis cannot be used ends with one line. Celery's would start, and swallow what is raised here.
    """
    from billiard import current_process

    from tasks.errors import BrokerUnavailable, refuse
    from tasks.logs import write_json
    from tasks.server.requirements import SWEEP, require_server
    from tasks.sweep.sweep import Sweep
    from worker_config.celeryconfig import settings_of

    if settings_of(app).log_json:
        write_json(logging.getLogger())
    embedded = (
        current_process().name == "Beat"
    )  # Celery's name for the child of a worker with -B, which has looked itself
    try:
        if not embedded:
            require_server(app, SWEEP)
        sweep = Sweep.of(app)
    except BrokerUnavailable as error:
        refuse(error.exit_status, str(error), error.entry)
    sweep.start()
    if embedded:
        threading.Thread(target=_end_with_parent, args=(os.getppid(),), name="parent", daemon=True).start()
    return sweep


def _end_with_parent(parent: int) -> None:
    """A worker that is killed leaves its beat behind, one more with each restart."""
    while os.getppid() == parent:
        time.sleep(PARENT_LOOK_S)
    os.kill(os.getpid(), signal.SIGTERM)
