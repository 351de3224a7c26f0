"""A producer's first contact with its Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.server.connection import endpoint
from tasks.server.requirements import require_server
from tasks.server.subscriptions import SUBSCRIPTIONS

if TYPE_CHECKING:
    from celery import Celery


def meet(app: Celery) -> None:
    """Make sure that this application can send requests, and read their answers.

    Raises:
        BrokerUnavailable: Redis cannot be reached, or not be used.
        BrokerMisconfigured: the same, and a retry would not help; or an option of the application is in the way.
    """
    require_server(app)
    SUBSCRIPTIONS.note_contact(endpoint(app))
