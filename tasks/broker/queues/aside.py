"""Requests that were set aside: fetched by a worker that could not run their model just then, and put where those that can look.

Each queue has, beside its lists by priority, a list for each model of which something was set aside
(:func:`tasks.broker.queues.queues.aside_list`); ``celery-mlx:aside`` says which, and since when.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.broker import scripts
from tasks.broker.queues.queues import queue_and_model
from tasks.registry.values import text
from tasks.server import keys
from tasks.server.connection import translated

if TYPE_CHECKING:
    import redis


@dataclass(slots=True, frozen=True)
class Aside:
    """The messages set aside of one queue for one model at one priority; ``age_s`` since the first of it was."""

    queue: str
    model: str
    list_name: str
    length: int
    age_s: float


def read_aside(client: redis.Redis) -> list[Aside]:
    """All that is set aside now for models; lists that were emptied are forgotten.

    Raises:
        BrokerUnavailable: Redis cannot be reached or refuses for now.
    """
    script = client.register_script(scripts.source("aside"))
    with translated("reading what was set aside"):
        flat: Any = script([keys.ASIDE], [])
    found = []
    for name, length, age_ms in zip(flat[::3], flat[1::3], flat[2::3], strict=True):
        queue, model = queue_and_model(text(name))
        if model:  # the others are the lanes of workers
            found.append(Aside(queue, model, text(name), int(length), int(age_ms) / 1000))
    return found
