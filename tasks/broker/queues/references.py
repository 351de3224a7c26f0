"""References: a reference stands in a queue for a request whose message is in the ledger.

A prompt that waits is in Redis once. Its entry in the ledger has the message, and the list has a reference to the entry. Whoever
takes a reference fetches the message by a script that notes who holds it (fetch.lua). A reference that is lost with its worker is
found missing by the sweep, which queues another one. Other tasks, and other clients, have their messages in the lists themselves.
"""

from __future__ import annotations

from tasks.broker import scripts
from tasks.registry.values import text

#: No message begins with it, since messages are JSON objects.
REFERENCE = "="
_DEFINITION = f'local REFERENCE = "{REFERENCE}"\n' + scripts.source("reference")


def with_references(name: str) -> str:
    """The source of a script that writes or reads lists."""
    return _DEFINITION + scripts.source(name)


def reference(task_id: str) -> str:
    """Return the reference that stands for a request."""
    return f"{REFERENCE}{task_id}"


def referred(item: bytes) -> str | None:
    """The request that an item of a list refers to; ``None`` for a message."""
    return text(item[len(REFERENCE) :]) if item.startswith(REFERENCE.encode()) else None
