"""Slots follow from the hardware; ``-c`` caps them. A queue to which nothing is sent is pointed out."""

from __future__ import annotations

import pytest

from tasks.worker.profile.slots import slots_of, unrouted_warnings
from tests.unit.machines import mac

MACHINE = mac("Base", 10, 16)
SMALL, MEDIUM = "tier-under-3B", "tier-3-7B"


def test_without_a_word() -> None:
    """A worker has the slots of its tiers together."""
    slots = slots_of(MACHINE, [SMALL, MEDIUM, "celery"], None)
    assert slots.total == sum(slots.by_queue.values()) > 2
    assert slots.warnings == ()


@pytest.mark.parametrize("typed", [1, 2])
def test_capped(typed: int) -> None:
    """No queue has more slots than the worker."""
    slots = slots_of(MACHINE, [SMALL, MEDIUM], typed)
    assert slots.total == typed
    assert slots.by_queue == {SMALL: typed, MEDIUM: typed}


def test_more_than_the_machine_carries() -> None:
    """``-c`` raises nothing: what a worker shows is what it runs, and it says so."""
    slots = slots_of(MACHINE, [SMALL, "celery"], 100)
    assert slots.total == slots.by_queue[SMALL] < 100
    (warning,) = slots.warnings
    assert warning.startswith("-c 100: ")


@pytest.mark.parametrize("queues", [[SMALL, "shop"], ["celery"], ["shop"]])
def test_other_queues_take_what_was_typed(queues: list[str]) -> None:
    """Queues of an application's own tasks have no limit but that of the worker."""
    slots = slots_of(MACHINE, queues, 100)
    assert slots.total == 100
    assert slots.warnings == ()


def test_a_queue_that_nothing_is_sent_to() -> None:
    """It is named, with those that requests go to; an application with tasks of its own may use any queue."""
    (warning,) = unrouted_warnings([SMALL, "celery", "default"], ["tasks.generate", "celery.chord"])
    assert "'default'" in warning
    assert SMALL in warning
    assert unrouted_warnings([SMALL, "default"], ["tasks.generate", "shop.count"]) == ()
