"""Finds the Redis that has an application's journals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.broker.results import Backend
from tasks.server.connection import endpoint

if TYPE_CHECKING:
    from celery import Celery

    from tasks.server.connection import Endpoint


def journals_of(app: Celery) -> Endpoint:
    """The server that this application's journals are on. A backend of ours remembers it: a search costs as much as a read."""
    backend = app.backend
    return backend.broker if isinstance(backend, Backend) else endpoint(app)
