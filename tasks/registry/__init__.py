"""The fleet in Redis: workers' records and leases, the messages they hold, and the ledger of what was submitted."""

from __future__ import annotations

from tasks.registry.grace import Grace
from tasks.registry.registry import Beat, Connections, DuplicateWorker, Reading, Registration, Registry

__all__ = ["Beat", "Connections", "DuplicateWorker", "Grace", "Reading", "Registration", "Registry"]
