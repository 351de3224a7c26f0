"""Whether two processes mean the same by the records that a worker and an engine exchange.

A record is pickled as the values of its fields, in their order. An engine of newer code would take one field for another where
the package was replaced under a worker that runs.
"""

from __future__ import annotations

import hashlib
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING

from tasks.messages import answer, constraint, embedding, engine, load, memory, tools

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType

MODULES = (answer, constraint, embedding, engine, load, memory, tools)


def protocol(modules: Iterable[ModuleType] = MODULES) -> str:
    """A digest of all records, as this process has loaded them."""
    records = [
        (kind.__name__, [(field.name, str(field.type)) for field in fields(kind)])
        for module in modules
        for kind in vars(module).values()
        if isinstance(kind, type) and is_dataclass(kind) and kind.__module__ == module.__name__
    ]
    return hashlib.blake2b(repr(sorted(records)).encode(), digest_size=8).hexdigest()
