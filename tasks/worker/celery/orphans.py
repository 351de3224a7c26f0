"""A step of Celery's consumer that runs at each connection: messages that are held and do not run go back to their queues.

With a lost connection Celery forgets a message that was noted as held and had not reached its handler. Nobody else may restore
from this worker's keys while it lives.
"""

from __future__ import annotations

from typing import Any

from celery import bootsteps


class RestoreOrphans(bootsteps.StartStopStep):
    """After the task consumer is made, and before it fetches anything."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, c: Any) -> None:
        """Give back the messages that the pool does not run."""
        c.pool.restore_orphans(c.task_consumer.channel)
