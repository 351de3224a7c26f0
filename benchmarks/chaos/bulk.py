"""``python -m benchmarks.chaos.bulk``: a bulk job goes through while its driver, workers, engines, beat and Redis are killed.

Each line has to be in the output once, with the text of an undisturbed run, and nothing of it may stay in Redis.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from redis.exceptions import RedisError

from benchmarks.chaos.bulk_lines import Texts, Vectors
from benchmarks.chaos.fleet import Fleet
from tasks.demo.process import GuardedProcess
from tasks.registry.values import text
from tasks.server import keys
from worker_config.settings import environment_with

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.chaos.bulk_lines import Lines

MIB = 2**20
#: A run that is not through by then hangs.
END_S = 3_000.0
#: What is killed, or restarted.
KINDS = ("driver", "worker", "engine", "beat", "redis")


class Memory(threading.Thread):
    """Samples what Redis and the driver take.

    Args:
        fleet: has Redis.
        driver: the driver's process id, now.
    """

    def __init__(self, fleet: Fleet, driver: Callable[[], int]) -> None:
        super().__init__(daemon=True)
        self._fleet = fleet
        self._driver = driver
        self._ending = threading.Event()
        self.idle = self.redis_peak = self._redis()
        #: The driver's resident bytes, each second.
        self.driver: list[int] = []

    def run(self) -> None:
        """Sample until :meth:`stop`."""
        while not self._ending.wait(0.5):
            try:
                self.redis_peak = max(self.redis_peak, self._redis())
                self.driver.append(psutil.Process(self._driver()).memory_info().rss)
            except (psutil.Error, RedisError):  # it was just killed
                continue

    def stop(self) -> None:
        """Sample no more."""
        self._ending.set()
        self.join()

    def _redis(self) -> int:
        return int(self._fleet.client.info("memory")["used_memory"])


class Driver:
    """The command, which is started again whenever it was killed."""

    def __init__(self, folder: Path, source: Path, target: Path) -> None:
        self._folder = folder
        command = [sys.executable, "-m", "celery", "-A", "tasks", "bulk", "run", str(source), str(target), "--quiet"]
        self._command = command
        self.start()

    def start(self) -> None:
        """Start it."""
        self.process = GuardedProcess(
            self._command, log=self._folder / "driver.log", grace_s=5.0, env=environment_with()
        )

    def kill(self) -> None:
        """``kill -9``, and another start."""
        self.process.kill()
        self.start()


def main() -> int:
    """Run the job, and judge its output."""
    options = _options()
    lines: Lines = Vectors() if options.embed else Texts()
    with (
        tempfile.TemporaryDirectory(prefix="bulk-") as name,
        Fleet(Path(name), options.workers, options.slots, **lines.environment(Path(name))) as fleet,
    ):
        folder = Path(name)
        source, target = folder / "input.jsonl", folder / "output.jsonl"
        with source.open("w") as file:
            for number in range(options.lines):
                file.write(json.dumps(lines.line(number)) + "\n")
        lines.learn(options.lines)
        driver = Driver(folder, source, target)
        memory = Memory(fleet, lambda: driver.process.pid)
        memory.start()
        begun = time.monotonic()
        killed = _disturb(fleet, driver, target, options)
        took_s = time.monotonic() - begun
        memory.stop()
        wrong = _wrong(target, options.lines, lines)
        left = [key for key in map(text, fleet.client.keys("*bulk-*-*")) if not key.startswith(keys.collected(""))]
        log = (folder / "driver.log").read_text(errors="replace")
    redis_mib, driver_mib = (memory.redis_peak - memory.idle) / MIB, [peak / MIB for peak in memory.driver]
    print(
        f"{options.lines} lines, {dict(killed)} killed, {took_s:.0f} s ({options.lines / took_s:.0f} lines/s): "
        f"{len(wrong)} wrong, {len(left)} keys left {left[:3]}; Redis {redis_mib:.1f} MiB above idle at most; "
        f"driver {driver_mib[len(driver_mib) // 4]:.0f} MiB at a quarter, {max(driver_mib):.0f} MiB at most"
    )
    for mistake in wrong[:10]:
        print(f"wrong: {mistake}")
    if wrong:
        print(log[-2_000:])
    return 1 if wrong or left else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos.bulk", description=__doc__)
    parser.add_argument("--lines", type=int, default=100_000, help="lines (100000)")
    parser.add_argument("--kills", type=int, default=20, help="kills (20)")
    parser.add_argument("--workers", type=int, default=3, help="workers (3)")
    parser.add_argument("--slots", type=int, default=16, help="slots of each worker (16)")
    parser.add_argument("--seed", type=int, default=1, help="of who is killed (1)")
    parser.add_argument("--embed", action="store_true", help="vectors of a real model instead of a fake engine's texts")
    parser.add_argument("--only", action="append", choices=KINDS, default=[], help="kill these; may be repeated (all)")
    return parser.parse_args()


def _disturb(fleet: Fleet, driver: Driver, target: Path, options: argparse.Namespace) -> Counter[str]:
    """Kill somebody at even steps of the job's progress; who was killed how often."""
    chance = random.Random(options.seed)
    kills: dict[str, Callable[[], object]] = {
        "driver": driver.kill,
        "worker": lambda: fleet.kill_worker(chance.choice(fleet.nodes)),
        "engine": lambda: fleet.kill_engine(chance.choice(fleet.nodes)),
        "beat": fleet.kill_beat,
        "redis": fleet.server.restart,
    }
    killed: Counter[str] = Counter()
    deadline = time.monotonic() + END_S
    while driver.process.running:
        assert time.monotonic() < deadline, f"not through after {END_S:g} s"
        done = target.read_bytes().count(b"\n") if target.exists() else 0
        if killed.total() < options.kills and done >= options.lines * (killed.total() + 1) / (options.kills + 1):
            name = _next_kind(options.only or KINDS, killed.total(), chance)
            kills[name]()
            killed[name] += 1
        fleet.supervise()
        time.sleep(0.2)
    return killed


def _next_kind(kinds: Sequence[str], killed: int, chance: random.Random) -> str:
    """The driver every second time, and one of the others else."""
    others = [kind for kind in kinds if kind != "driver"]
    return "driver" if not others or ("driver" in kinds and killed % 2 == 0) else chance.choice(others)


def _wrong(target: Path, count: int, lines: Lines) -> list[str]:
    """What is wrong with the output."""
    found: Counter[str] = Counter()
    wrong = []
    for line in target.read_text().splitlines():
        record = json.loads(line)
        line_id = record.get("custom_id") or record["id"]
        found[line_id] += 1
        if not lines.is_right(int(line_id[1:]), record):
            wrong.append(line[:300])
    wrong += [f"{line_id}: {times} times" for line_id, times in found.items() if times > 1]
    return wrong + [f"l{number}: not there" for number in range(count) if f"l{number}" not in found]


if __name__ == "__main__":
    sys.exit(main())
