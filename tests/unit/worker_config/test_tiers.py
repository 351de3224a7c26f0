from __future__ import annotations

import re
from itertools import pairwise

import pytest

from worker_config.environment import SettingError
from worker_config.tiers import QUEUES, TIERS, tier_named, tier_of_queue


def test_tiers_ascend_in_every_demand() -> None:
    """Each tier asks for more of everything than the one before, and gives fewer slots."""
    for smaller, larger in pairwise(TIERS):
        assert smaller.parameters_from_b < larger.parameters_from_b
        assert smaller.gpu_cores < larger.gpu_cores
        assert smaller.memory_gb < larger.memory_gb
        assert smaller.slots > larger.slots
    assert all(tier.slots_min <= tier.slots <= tier.slots_max for tier in TIERS)
    assert TIERS[0].parameters_from_b == TIERS[0].gpu_cores == TIERS[0].memory_gb == 0


def test_queue_names_are_safe_in_a_shell() -> None:
    """A queue can be typed after -Q without quotes, and no two tiers share one."""
    assert len(set(QUEUES)) == len(TIERS)
    assert all(re.fullmatch(r"[A-Za-z0-9-]+", queue) for queue in QUEUES)


@pytest.mark.parametrize("tier", TIERS, ids=lambda tier: tier.queue)
def test_a_tier_is_found_by_name_and_by_queue(tier: object) -> None:
    """Both spellings of a tier lead to it."""
    found = tier_of_queue(getattr(tier, "queue", ""))
    assert found is tier
    assert tier_named(found.name) is tier


def test_an_unknown_tier_is_an_error_that_lists_them_all() -> None:
    """The message has the value and every name that would have been right."""
    with pytest.raises(SettingError, match="'7B'") as by_name:
        tier_named("7B")
    with pytest.raises(SettingError, match="'tier-7B'") as by_queue:
        tier_of_queue("tier-7B")
    assert all(tier.name in str(by_name.value) for tier in TIERS)
    assert all(tier.queue in str(by_queue.value) for tier in TIERS)
