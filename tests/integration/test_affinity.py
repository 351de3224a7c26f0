"""Requests that find the worker where their prompt is warm: two real workers with a real model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.parts.catalogue import write_catalogue
from benchmarks.parts.tiny_model import make_tiny_model
from tasks.server import keys
from tests.support import send_unchecked, wait_until

if TYPE_CHECKING:
    import redis
    from celery import Celery

    from tasks.generate import GenerateTask
    from tests.conftest import StartWorker
    from tests.support import Worker

QUEUE, MODEL = "warm", "tiny"
KINDS, TURNS = 4, 4
WAIT_S = 60.0


@pytest.fixture(scope="module")
def workers(
    shared_worker: StartWorker, shared_redis: redis.Redis, tmp_path_factory: pytest.TempPathFactory
) -> list[Worker]:
    """Two workers that have said that they have lanes."""
    folder = tmp_path_factory.mktemp("models")
    catalogue = write_catalogue(folder, {MODEL: make_tiny_model(folder / MODEL)})
    env = {"CELERY_MLX_CATALOGUE": str(catalogue), "CELERY_MLX_MODELS": MODEL, "CELERY_MLX_HEARTBEAT_S": "0.5"}
    started = [shared_worker("-c", "2", "-Q", QUEUE, env=env, online=False) for _ in range(2)]
    for member in started:
        member.wait_until_online()
    wait_until(lambda: shared_redis.hlen(keys.AFFINITY_WORKERS) == 2)
    return started


@pytest.fixture(scope="module")
def generate(shared_app: Celery) -> GenerateTask:
    """The task as a producer has it."""
    from tasks import generate

    assert generate.app is shared_app
    return generate


def ask(generate: GenerateTask, messages: list[dict[str, str]]) -> Any:
    """Send a turn."""
    return send_unchecked(generate, QUEUE, messages=messages, model=MODEL, temperature=0, max_tokens=4)


def system(kind: object) -> dict[str, str]:
    """What all conversations of a kind begin with."""
    return {"role": "system", "content": f"{kind}: " + f"all that there is to know about {kind}. " * 12}


def taken(workers: list[Worker], how: str) -> int:
    """How many requests these workers took from their own lanes (``hits``), or from others' (``steals``)."""
    records = [worker.record() for worker in workers]
    return sum(record.metrics["lanes"][how] for record in records if record is not None)


def test_conversations_stay_where_they_are_warm(generate: GenerateTask, workers: list[Worker]) -> None:
    """All turns of all conversations with one system prompt go to one worker, which computes that once; the fleet says so."""
    where: dict[int, set[str]] = {}
    cold = 0
    for turn in range(TURNS):
        for kind in range(KINDS):
            messages = [system(kind)]
            for before in range(turn):
                messages += [{"role": "user", "content": f"{before}?"}, {"role": "assistant", "content": "Yes."}]
            answer = ask(generate, [*messages, {"role": "user", "content": f"{turn}?"}]).get(timeout=WAIT_S)
            where.setdefault(kind, set()).add(answer["worker"])
            usage = answer["usage"]
            cold += turn > 0 and usage["cached_tokens"] <= usage["prompt_tokens"] / 2
    wait_until(lambda: taken(workers, "hits") + taken(workers, "steals") == KINDS * TURNS, about="the counts of both")
    # On a busy machine a worker may stand still: then the other one takes what waits for it.
    steals = taken(workers, "steals")
    assert max(cold, sum(len(nodes) - 1 for nodes in where.values())) <= steals < KINDS * TURNS / 2


def test_a_worker_that_dies_holds_up_nobody(generate: GenerateTask, workers: list[Worker]) -> None:
    """What comes into the lane of a worker that was killed, before anybody has noticed, is taken by the other one."""
    question = [system("death"), {"role": "user", "content": "When?"}]
    warm = ask(generate, question).get(timeout=WAIT_S)["worker"]
    (owner,) = [worker for worker in workers if worker.node == warm]
    (other,) = [worker for worker in workers if worker is not owner]
    before = taken([other], "steals")
    owner.kill()
    assert ask(generate, question).get(timeout=WAIT_S)["worker"] == other.node
    wait_until(lambda: taken([other], "steals") == before + 1, about="what the other one took")
