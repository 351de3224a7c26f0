"""Where a producer sends a model's requests: to the tier that the fleet knows by the files, whatever is on its own disk."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from tasks.server.connection import connect
from tests.fleet import Ghost

if TYPE_CHECKING:
    from tasks.generate import GenerateTask

#: By its name a model of the largest tier.
MODEL = "mlx-community/Odd-70B"


def test_the_fleet_knows_better(generate: GenerateTask, redis_url: str) -> None:
    """The first request for a model goes where a worker that has its files says; without such a worker its name decides."""
    with closing(connect(redis_url)) as client:
        generate.delay(prompt="a", model=f"{MODEL}-of-nobody")
        assert client.llen("tier-30B-plus") == 1
        with Ghost(client, "mac@lab") as worker:
            worker.record.tiers = {MODEL: "tier-under-3B"}
            worker.beat()
            generate.delay(prompt="a", model=MODEL)
        assert client.llen("tier-under-3B") == 1
        assert client.llen("tier-30B-plus") == 1
