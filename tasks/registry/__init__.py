"""The fleet in Redis: workers' records and leases, and the messages they hold."""

from __future__ import annotations

from tasks.registry.grace import Grace
from tasks.registry.registry import Beat, Connections, DuplicateWorker, Reading, Registration, Registry

__all__ = ["Beat", "Connections", "DuplicateWorker", "Grace", "Reading", "Registration", "Registry"]
