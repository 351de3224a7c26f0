"""The faults, and how often each comes."""

from __future__ import annotations

import json
import random
import threading
import time
from typing import TYPE_CHECKING, TypeAlias

import redis

from tasks.broker.queues.queues import node_of
from tasks.registry.values import text
from tasks.server import keys

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.chaos.fleet import Fleet
    from benchmarks.chaos.load import Load

Fault: TypeAlias = "Callable[[Fleet, Load, random.Random], bool]"
#: Past a lease of 15 s.
SLEEP_S = 17.0
SILENCE_S = (2.0, 12.0)
ROLLBACK_S = 1.0
#: The longest wait for a request in a lane.
LANE_S = 3.0


def kill_worker(fleet: Fleet, _load: Load, chance: random.Random) -> bool:
    """``kill -9`` of a worker, which is started again a second later."""
    _in_background(fleet.kill_worker, chance.choice(fleet.nodes))
    return True


def kill_lane_owner(fleet: Fleet, _load: Load, _chance: random.Random) -> bool:
    """``kill -9`` of a worker in whose lane a request waits, once there is one."""
    deadline = time.monotonic() + LANE_S
    while time.monotonic() < deadline:
        for name in map(text, fleet.client.zrange(keys.ASIDE, 0, -1)):
            if node_of(name) in fleet.nodes and fleet.client.llen(name):
                _in_background(fleet.kill_worker, node_of(name))
                return True
        time.sleep(0.01)
    return False


def restart_worker(fleet: Fleet, _load: Load, chance: random.Random) -> bool:
    """An orderly restart: SIGTERM, drain, start."""
    _in_background(fleet.restart_worker, chance.choice(fleet.nodes))
    return True


def kill_engine(fleet: Fleet, _load: Load, chance: random.Random) -> bool:
    """``kill -9`` of an engine."""
    return fleet.kill_engine(chance.choice(fleet.nodes))


def stop_worker(fleet: Fleet, _load: Load, chance: random.Random) -> bool:
    """SIGSTOP of a worker past its lease, then SIGCONT."""
    _in_background(fleet.stop_worker, chance.choice(fleet.nodes), SLEEP_S)
    return True


def kill_beat(fleet: Fleet, _load: Load, _chance: random.Random) -> bool:
    """``kill -9`` of beat, and with it of the sweep."""
    fleet.kill_beat()
    return True


def drop_connections(fleet: Fleet, _load: Load, chance: random.Random) -> bool:
    """Redis closes all connections of a kind: commands and BRPOPs, or subscriptions."""
    fleet.client.client_kill_filter(_type=chance.choice(("normal", "pubsub")), skipme=True)
    return True


def restart_redis(fleet: Fleet, _load: Load, _chance: random.Random) -> bool:
    """Redis is stopped and started again, with its append-only file."""
    fleet.server.restart()
    return True


def cut_reader(_fleet: Fleet, load: Load, _chance: random.Random) -> bool:
    """A reader leaves in mid-stream and comes back with a new stream."""
    load.cut_a_reader()
    return True


def duplicate_delivery(fleet: Fleet, _load: Load, _chance: random.Random) -> bool:
    """A message that a worker holds is delivered a second time."""
    for key in fleet.client.scan_iter("celery-mlx:unacked:*"):
        held = fleet.client.hvals(key)
        if held:
            raw, _, queue = json.loads(held[0])
            fleet.client.rpush(queue, json.dumps(raw))
            return True
    return False


def kill_loading_engine(fleet: Fleet, _load: Load, chance: random.Random) -> bool:
    """``kill -9`` of an engine, and of its replacement while that loads its model."""
    return fleet.kill_loading_engine(chance.choice(fleet.nodes))


def silent_link(fleet: Fleet, _load: Load, chance: random.Random) -> bool:
    """Nothing passes between a worker, or the producers, and Redis for some seconds; nothing is closed."""
    _in_background(fleet.silence, chance.randint(0, len(fleet.nodes)), "silent", chance.uniform(*SILENCE_S))
    return True


def half_open_link(fleet: Fleet, _load: Load, chance: random.Random) -> bool:
    """What Redis answers does not arrive for some seconds, though it hears and does what it is told."""
    _in_background(fleet.silence, chance.randint(0, len(fleet.nodes)), "half", chance.uniform(*SILENCE_S))
    return True


def forgotten_connections(fleet: Fleet, _load: Load, chance: random.Random) -> bool:
    """All connections of a worker, or of the producers, are dead and never closed; new ones work."""
    fleet.forget_connections(chance.randint(0, len(fleet.nodes)))
    return True


def roll_back(fleet: Fleet, _load: Load, _chance: random.Random) -> bool:
    """Redis is killed and comes back as it was a second before."""
    fleet.roll_back(ROLLBACK_S)
    return True


#: How often each fault is drawn, in parts of the sum.
FAULTS: dict[str, tuple[Fault, int]] = {
    "kill -9 of a worker": (kill_worker, 12),
    "kill -9 of a worker with requests in its lane": (kill_lane_owner, 6),
    "restart of a worker": (restart_worker, 6),
    "kill -9 of an engine": (kill_engine, 12),
    "worker asleep for 17 s": (stop_worker, 2),
    "kill -9 of beat": (kill_beat, 6),
    "connections dropped": (drop_connections, 22),
    "restart of Redis": (restart_redis, 8),
    "reader comes back": (cut_reader, 18),
    "message delivered twice": (duplicate_delivery, 14),
    "kill -9 of an engine, and of its replacement": (kill_loading_engine, 6),
    "silent link": (silent_link, 6),
    "half-open link": (half_open_link, 6),
    "connections forgotten": (forgotten_connections, 6),
    "Redis put back by 1 s": (roll_back, 6),
}


class Storm:
    """Draws faults until told to stop, and notes when each came.

    Args:
        fleet: whom they hit.
        load: who reads meanwhile.
        pause_s: mean time between two.
        seed: of the draws.
        names: which faults may come; all if empty.
    """

    def __init__(self, fleet: Fleet, load: Load, pause_s: float, seed: int, names: Sequence[str] = ()) -> None:
        self._faults = {name: fault for name, fault in FAULTS.items() if not names or name in names}
        self._fleet = fleet
        self._load = load
        self._pause_s = pause_s
        self._random = random.Random(seed)
        self.happened: list[tuple[str, float, list[int]]] = []

    def once(self) -> None:
        """Wait, then one fault; what was running at that moment is noted."""
        time.sleep(self._random.uniform(0.5, 1.5) * self._pause_s)
        (name,) = self._random.choices(list(self._faults), [weight for _, weight in self._faults.values()])
        running = [reading.number for reading in self._load.running_now()]
        at = time.monotonic()
        try:
            happened = self._faults[name][0](self._fleet, self._load, self._random)
        except redis.RedisError:  # it has just been restarted, and loads its data
            happened = False
        if happened:
            self.happened.append((name, at, running))


def _in_background(action: Callable[..., None], *arguments: object) -> None:
    threading.Thread(target=action, args=arguments, daemon=True).start()
