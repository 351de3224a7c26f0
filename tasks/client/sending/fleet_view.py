"""A producer's view of the fleet: the tiers of models, and whether a live worker serves a request's tier."""

from __future__ import annotations

import logging
import threading
import time
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from tasks.errors import GenerationError, NoWorker
from tasks.models.routing import Route, queue_for, queue_for_model, snapshot_of
from worker_config.catalogue import catalogue_of
from worker_config.celeryconfig import settings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from celery import Celery

    from tasks.client.request.form import Common
    from tasks.models.routing import FleetSnapshot
    from worker_config.catalogue import Catalogue, ModelEntry
    from worker_config.settings import Settings

logger = logging.getLogger("tasks.generate")

#: The shortest interval between a producer's looks at the fleet for one model.
LOOK_EVERY_S = 30.0
#: Names of models that a producer remembers: a program may make them up.
MOST_MODELS = 1_024

Found = TypeVar("Found")


class FleetView:
    """One application's view; reads the registry at the first request for a model, and later beside requests.

    Args:
        app: says where the registry is.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._looked_at: dict[str, float] = {}
        self._entries: dict[str, ModelEntry] = {}
        self._tiers: Mapping[str, str] = {}
        self._queues: dict[str, str] = {}

    @cached_property
    def settings(self) -> Settings:
        """The settings of this producer. To ask Celery takes longer than to check a request."""
        return settings_of(self._app)

    @cached_property
    def _catalogue(self) -> Catalogue:
        return catalogue_of(self.settings)

    @property
    def tiers(self) -> Mapping[str, str]:
        """The queues of the models whose files live workers have, by name, as the last look found them."""
        return self._tiers

    def entry_of(self, model: str) -> ModelEntry:
        """The catalogue's entry for a model. It is looked for once, unless it is a folder, which may come and go.

        Raises:
            ModelNotAllowed: there is none.
        """
        entry = self._entries.get(model)
        if entry is None:
            entry = self._catalogue.resolve(model)
            if entry.kind != "path":
                _keep(self._entries, model, entry)
        return entry

    def queue_of(self, model: str) -> str:
        """The queue of a model, which is looked for once after each look at the fleet.

        Raises:
            UnknownModel: the model is not allowed, or nothing tells its size.
        """
        # A look replaces both. Were it between these lines, the queue would be kept with the tiers that it was found by.
        queues, tiers = self._queues, self._tiers
        queue = queues.get(model)
        if queue is None:
            queue = queue_for_model(model, self._catalogue, tiers)
            if self.entry_of(model).kind != "path":
                _keep(queues, model, queue)
        return queue

    def look(self, parameters: Common, queue: Any) -> None:
        """See to it that somebody serves a request: required where it says so, and else with a warning.

        Args:
            parameters: the request's.
            queue: the one that its producer has named, if any.

        Raises:
            NoWorker: a worker is required, and there is none.
            BrokerUnavailable: a worker is required, and Redis cannot be reached.
        """
        model = parameters.model or self.settings.default_model
        if parameters.require_worker:
            self._require(model)
        elif isinstance(queue, str):
            self._look(f"queue {queue}", lambda: self._nobody_consumes(queue))
        else:
            self._look(f"model {model}", lambda: self._route(model).warning)

    def _require(self, model: str) -> None:
        """Make sure that a live worker serves this model's tier now.

        Raises:
            NoWorker: none does; the message says what would.
            BrokerUnavailable: Redis cannot be reached.
        """
        warning = self._route(model).warning
        if warning:
            raise NoWorker(warning)

    def _look(self, about: str, find: Callable[[], str | None]) -> None:
        """Log a warning, at most every :data:`LOOK_EVERY_S` for a model or a queue.

        The first look is waited for: the fleet knows a model's tier, where its name would say another.
        """
        now = time.monotonic()
        with self._lock:
            last = self._looked_at.get(about)
            if last is not None and now - last < LOOK_EVERY_S:
                return
            self._looked_at[about] = now
        if last is None:
            _warn(find)
        else:
            threading.Thread(target=_warn, args=(find,), name="fleet-view", daemon=True).start()

    def _nobody_consumes(self, queue: str) -> str:
        consumed = self._snapshot().queues
        if queue in consumed:
            return ""
        return f"no live worker consumes the queue {queue!r}; the fleet serves {', '.join(sorted(consumed)) or 'no queue at all'}"

    def _route(self, model: str) -> Route:
        snapshot = self._snapshot()
        self._tiers, self._queues = snapshot.tiers, {}
        return queue_for(model, snapshot, self._catalogue)

    def _snapshot(self) -> FleetSnapshot:
        from contextlib import closing

        from tasks.registry import Registry
        from tasks.server.connection import connect

        with closing(connect(self._app)) as client:
            reading = Registry(client).read()
        return snapshot_of(reading.records, reading.now - self.settings.dead_after_s)


def _keep(found: dict[str, Found], model: str, value: Found) -> None:
    if len(found) >= MOST_MODELS:
        found.clear()
    found[model] = value


def _warn(find: Callable[[], str | None]) -> None:
    try:
        warning = find()
    except GenerationError as error:  # a model that only its own queue's workers know, or Redis is away
        logger.debug("the fleet could not be looked at: %s", error)
        return
    if warning:
        logger.warning("%s; the request waits", warning)
