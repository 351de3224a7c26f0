"""The engines of a worker that is alone, without the worker."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tasks.hardware import detect
from tasks.worker.changes import Changes
from tasks.worker.engines.backlog import Backlog
from tasks.worker.engines.engines import Engines
from tasks.worker.engines.failures import Failures
from tasks.worker.engines.peers import NoPeers
from worker_config.catalogue import catalogue_of
from worker_config.settings import Settings

if TYPE_CHECKING:
    from tasks.worker.attempts.publisher import Publisher
    from tasks.worker.engines.peers import Peers


def engines_with(
    publisher: Publisher,
    budget_bytes: int = 10**9,
    *,
    slots: int = 4,
    settings: Settings | None = None,
    failures: Failures | None = None,
    changes: Changes | None = None,
    backlog: Backlog | None = None,
    peers: Peers | None = None,
) -> Engines:
    """Engines that were started; the caller closes them."""
    changes, settings = changes or Changes(), settings or Settings()
    peers = peers or NoPeers()
    engines = Engines(
        settings,
        catalogue_of(replace(settings, allow_fake=True)),
        budget_bytes,
        detect(settings),
        slots,
        publisher,
        changes,
        backlog or Backlog(list, [], peers, changes),
        peers,
        failures or Failures(),
        on_step=lambda _engine, _output: None,
    )
    engines.start()
    return engines
