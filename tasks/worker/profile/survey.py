"""The survey: which of the catalogue's models have their files on this machine, and which tiers those are of."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from tasks.errors import GenerationError
from tasks.models.footprint import local_source
from tasks.models.routing import tier_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker_config.catalogue import Catalogue


class Survey(threading.Thread):
    """Looks once, beside the worker's start: it reads the headers of all files in the hub's cache.

    Args:
        catalogue: the models.
        on_found: called when something was found.
    """

    def __init__(self, catalogue: Catalogue, on_found: Callable[[], None]) -> None:
        super().__init__(name="survey", daemon=True)
        self._catalogue = catalogue
        self._on_found = on_found
        #: The queues of the models that were found, by name; those that the catalogue pins to a tier are not looked for.
        self.tiers: dict[str, str] = {}

    def run(self) -> None:
        """Look."""
        found = {}
        for entry in self._catalogue.models.values():
            if entry.kind == "hub" and entry.tier is None:
                with suppress(GenerationError, OSError):  # a request for the model reports what is wrong with its files
                    if local_source(entry) is not None:
                        found[entry.name] = tier_of(entry).queue
        if found:
            self.tiers = found
            self._on_found()
