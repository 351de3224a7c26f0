"""The engines of a worker that is alone, without the worker."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tasks.hardware import detect
from tasks.worker.engines.backlog import Backlog
from tasks.worker.engines.changes import Changes
from tasks.worker.engines.engines import Engines
from tasks.worker.engines.failures import Failures
from tasks.worker.profile.capacity import Capacity
from tasks.worker.profile.profile import Profile
from tasks.worker.profile.slots import Slots
from worker_config.catalogue import catalogue_of
from worker_config.settings import Settings

if TYPE_CHECKING:
    from tasks.messages.engine import StepOutput
    from tasks.models.key import EngineKey
    from tasks.worker.attempts.publisher import Publisher
    from worker_config.model_entry import ModelEntry


class Deaf:
    """Listens to engines and does nothing about them."""

    def stepped(self, output: StepOutput) -> None:
        return

    def engines_changed(self) -> None:
        return

    def code_replaced(self, why: str) -> None:
        return

    def aside_lists_changed(self) -> None:
        return


class NoPeers:
    """The peers of a worker that is alone."""

    def look(self) -> None:
        return

    def have_loaded(self, queue: str, key: EngineKey) -> bool:
        return False

    def could_load(self, queue: str, entry: ModelEntry) -> bool:
        return False

    def may_know(self, queue: str, key: EngineKey) -> bool:
        return False

    def room(self, queue: str) -> str:
        return ""


def engines_with(
    publisher: Publisher,
    budget_bytes: int = 10**9,
    *,
    slots: int = 4,
    settings: Settings | None = None,
    failures: Failures | None = None,
    changes: Changes | None = None,
    backlog: Backlog | None = None,
) -> Engines:
    """Engines that were started; the caller closes them."""
    changes, settings = changes or Changes(), settings or Settings()
    capacity = Capacity(detect(settings), Slots({}, slots), budget_bytes)
    profile = Profile(settings, catalogue_of(replace(settings, allow_fake=True)), "alone@lab", [], capacity)
    backlog = backlog or Backlog(list, [], NoPeers(), changes)
    engines = Engines(profile, changes, backlog, publisher, Deaf(), failures or Failures())
    engines.start()
    return engines
