"""The refusal of other pools: by what was typed, and by what the configuration made of a worker that serves models."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import click
import pytest
from celery.bin.worker import worker as celery_worker
from celery.concurrency.prefork import TaskPool as Prefork

from tasks.worker.celery.pool import EnginePool
from tasks.worker.celery.pool_choice import WHY, refusal, typed_pool

if TYPE_CHECKING:
    from collections.abc import Callable

#: Celery's own option, under Celery's own name.
POOL_OPTION = next(option for option in celery_worker.params if "--pool" in option.opts)
HOW = ["-P {}", "-P{}", "--pool {}", "--pool={}", "-P={}"]


def worker(pool: Any = EnginePool, queues: tuple[str, ...] = ("tier-under-3B",)) -> Any:
    """What of Celery's worker the refusal looks at."""
    consumed = SimpleNamespace(consume_from=dict.fromkeys(queues))
    return SimpleNamespace(pool_cls=pool, options={}, app=SimpleNamespace(amqp=SimpleNamespace(queues=consumed)))


@pytest.fixture
def type_(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str | None]:
    """Runs a function as if these words had been typed behind ``celery worker``."""

    def run(words: str) -> str | None:
        monkeypatch.setattr(sys, "argv", ["celery", "-A", "tasks", "worker", *words.split()])
        answers: list[str | None] = []

        @click.command(context_settings={"ignore_unknown_options": True})
        @click.option(*POOL_OPTION.opts, POOL_OPTION.name, default="prefork")
        def command(**_: str) -> None:
            answers.append(refusal(worker()))

        command.main(words.split(), standalone_mode=False)
        return answers[0]

    return run


@pytest.mark.parametrize("spelling", HOW)
def test_every_spelling_is_read(spelling: str) -> None:
    """The pool is found however the option was written."""
    assert typed_pool(["celery", "worker", *spelling.format("solo").split(), "-c", "4"]) == "solo"


def test_nothing_was_typed() -> None:
    """Without the option there is nothing to refuse; an option that lacks its value is Celery's business."""
    assert typed_pool(["celery", "-A", "tasks", "worker", "-c", "4"]) is None
    assert typed_pool(["celery", "worker", "-P"]) == ""


@pytest.mark.parametrize("pool", sorted(WHY))
@pytest.mark.parametrize("spelling", HOW[:4])
def test_other_pools_are_refused(type_: Callable[[str], str | None], pool: str, spelling: str) -> None:
    """Each of Celery's pools is refused with its reason, and what to do."""
    assert type_(spelling.format(pool)) == f"-P {pool} cannot run an engine: {WHY[pool]}; leave -P out"


def test_ours_may_start(type_: Callable[[str], str | None]) -> None:
    """A worker with our pool starts, also when the pool was typed as custom."""
    assert type_("") == ""
    assert type_("-P custom") == ""


def test_a_path_is_as_good_as_a_class() -> None:
    """The pool is recognised before and after Celery has resolved its name."""
    assert refusal(worker("tasks.worker.celery.pool:EnginePool")) == ""
    assert refusal(worker("celery_mlx.worker.celery.pool:EnginePool")) == ""


def test_another_pool_for_our_queues() -> None:
    """A worker of another application that consumes a tier with another pool is told what to set."""
    message = refusal(worker(Prefork))
    assert message is not None
    assert message.startswith("this worker consumes tier-under-3B with the pool celery.concurrency.prefork:TaskPool")
    assert "worker_pool='celery_mlx.worker.celery.pool:EnginePool'" in message


def test_another_application_s_worker() -> None:
    """A worker that consumes none of the tiers is none of this project's business."""
    assert refusal(worker(Prefork, ("emails",))) is None
