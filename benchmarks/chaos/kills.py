"""``python -m benchmarks.chaos.kills``: a worker that takes requests as fast as it can is killed again and again; none is lost.

Each request is one token long, so that the worker is in the middle of taking or ending one at any moment.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.chaos.fleet import Fleet
from tasks.messages.registry import WorkerRecord, decode_record
from tasks.server import keys

if TYPE_CHECKING:
    from tasks.client.result import GenerateResult

MODEL = "fake:1"
BACKLOG = 300
END_S = 180.0


class Supply:
    """Keeps some requests waiting until told to stop, and knows them all."""

    def __init__(self) -> None:
        self.sent: list[GenerateResult] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._send_on, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send no more."""
        self._ending.set()
        self._thread.join()

    def _send_on(self) -> None:
        from tasks import generate

        waiting: list[GenerateResult] = []
        while not self._ending.is_set():
            waiting = [result for result in waiting if not result.ready()]
            new = [
                generate.delay(prompt=f"kill {len(self.sent) + number}", model=MODEL, max_tokens=1)
                for number in range(BACKLOG - len(waiting))
            ]
            waiting += new
            self.sent += new
            time.sleep(0.1)


def main() -> int:
    """Kill, and count what was lost."""
    options = _options()
    chance = random.Random(options.seed)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kills-") as folder, Fleet(Path(folder), 1, 64) as fleet:
        supply = Supply()
        (node,) = fleet.nodes
        boot = ""
        for number in range(options.kills):
            boot = _wait_until_it_takes(fleet, boot)
            time.sleep(chance.uniform(0, 0.5))
            fleet.kill_worker(node)
            if sys.stdout.isatty():
                print(f"\r{number + 1} kills, {len(supply.sent)} requests", end="", flush=True)
        supply.stop()
        lost = _unanswered(supply.sent)
    took_s = time.monotonic() - begun
    print(f"{options.kills} kills, {len(supply.sent)} requests in {took_s:.0f} s: {len(lost)} lost")
    for request in lost[:10]:
        print(f"lost: {request}")
    return 1 if lost else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="kills (200)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments (1)")
    return parser.parse_args()


def _wait_until_it_takes(fleet: Fleet, killed: str) -> str:
    """Wait until the worker that was started after this boot of it holds requests; its own boot."""
    deadline = time.monotonic() + 180
    while True:
        payload = fleet.client.hget(keys.WORKERS, fleet.nodes[0])
        record = decode_record(fleet.nodes[0], payload) if isinstance(payload, bytes) else None
        match record:
            case WorkerRecord() if record.boot != killed and fleet.client.hlen(keys.unacked(record.identity)):
                return record.boot
        assert time.monotonic() < deadline, "the worker takes nothing"
        time.sleep(0.005)


def _unanswered(sent: list[GenerateResult]) -> list[str]:
    """The requests without the one right answer."""
    from tasks.engine.fake import fake_text

    deadline = time.monotonic() + END_S
    lost = []
    for number, result in enumerate(sent):
        try:
            text = result.get(timeout=max(1.0, deadline - time.monotonic()))["text"]
        except Exception as error:  # noqa: BLE001  (whatever it is, it is a finding)
            lost.append(f"{result.id}: {error!r}")
            continue
        if text != fake_text(f"kill {number}", None, 1):
            lost.append(f"{result.id}: {text!r}")
    return lost


if __name__ == "__main__":
    sys.exit(main())
