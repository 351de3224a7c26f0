"""A fleet of unequal machines: each runs what its hardware carries, and none takes what an idle one could run."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from celery import group

from tests.support import wait_until
from worker_config.tiers import TIERS

if TYPE_CHECKING:
    import redis
    from celery import Celery

    from tests.conftest import StartWorker

#: Chip, GPU cores and memory of each machine, and the tiers that docs/tiers.md gives it.
MACHINES = {
    "Apple M1": ("8", "16", 1),
    "Apple M2 Pro": ("19", "32", 3),
    "Apple M3 Ultra": ("80", "192", 5),
}
EACH = 12


def test_each_runs_what_it_carries(producer_app: Celery, worker: StartWorker, redis_client: redis.Redis) -> None:
    """Sixty requests for models of all tiers: every one is answered, by a machine that carries its tier."""
    from tasks import generate

    assert generate.app is producer_app
    tiers_of, most = {}, 0
    for chip, (cores, memory, tiers) in MACHINES.items():
        env = {"CELERY_MLX_CHIP": chip, "CELERY_MLX_GPU_CORES": cores, "CELERY_MLX_MEMORY_GB": memory}
        started = worker(env={**env, "CELERY_MLX_HEARTBEAT_S": "0.2"})
        record = started.record()
        assert record is not None
        assert record.hardware["overridden"]
        assert [queue for queue in record.queues if queue != "celery"] == [tier.queue for tier in TIERS[:tiers]]
        tiers_of[started.node] = tiers
        most = max(most, record.concurrency)
    results = [
        (number, generate.delay(prompt=f"{tier.name} {n}", model=f"fake:5@{tier.name}", max_tokens=20))
        for n in range(EACH)
        for number, tier in enumerate(TIERS)
    ]
    served: Counter[tuple[str, int]] = Counter()
    for number, result in results:
        answer = result.get(timeout=120)
        assert number < tiers_of[answer["worker"]]
        served[answer["worker"], number] += 1
    assert served.total() == 60
    # One more than any of them has slots for, of the tier that all of them serve; slow ones, so that none has a free slot again.
    small = group(generate.s(prompt=f"{n}", model=f"fake:50@{TIERS[0].name}", max_tokens=100) for n in range(most + 1))
    assert len({answer["worker"] for answer in small.delay().get(timeout=120)}) > 1
    wait_until(lambda: redis_client.hlen("celery-mlx:ledger") == 0, about="an empty ledger")
