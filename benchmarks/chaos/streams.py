"""``python -m benchmarks.chaos.streams``: HTTP streams go through while gateways, workers and Redis are killed.

Clients whose connection breaks go on with Last-Event-ID, at whichever gateway answers. Each has to have every token once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from benchmarks.chaos.fleet import GRACE_S, Fleet
from tasks.demo.embedded import free_port
from tasks.demo.process import GuardedProcess
from worker_config.settings import environment_with

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PATH = "/v1/completions"
#: A client that has no whole answer by then hangs.
END_S = 900.0
START_S = 120.0
RETRY_S = 0.2


class Gateways:
    """Gateways that come back at their ports after they were killed, as a supervisor would have them.

    Args:
        fleet: what they are in front of.
        folder: for logs.
        count: how many.
    """

    def __init__(self, fleet: Fleet, folder: Path, count: int) -> None:
        self._fleet, self._folder = fleet, folder
        self._processes: dict[int, GuardedProcess | None] = dict.fromkeys(free_port() for _ in range(count))

    def __enter__(self) -> Gateways:
        for port in self._processes:
            self._start(port)
        for url in self.urls:
            self._wait_for(url)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            if process is not None:
                process.stop()

    def _wait_for(self, url: str) -> None:
        deadline = time.monotonic() + START_S
        while True:
            with suppress(httpx.HTTPError):
                httpx.get(f"{url}/health").raise_for_status()
                return
            assert time.monotonic() < deadline, f"no gateway after {START_S:g} s: see {self._folder}"
            time.sleep(RETRY_S)

    @property
    def urls(self) -> list[str]:
        """Where they answer."""
        return [f"http://127.0.0.1:{port}" for port in self._processes]

    def kill(self, port: int) -> None:
        """``kill -9``, and another start."""
        process = self._processes[port]
        assert process is not None
        process.kill()
        self._start(port)

    @property
    def ports(self) -> list[int]:
        """Theirs."""
        return list(self._processes)

    def _start(self, port: int) -> None:
        self._processes[port] = GuardedProcess(
            [sys.executable, "-m", "celery", "-A", "tasks", "gateway", "--port", str(port)],
            log=self._folder / f"gateway-{port}.log",
            grace_s=GRACE_S,
            env=environment_with(
                REDIS_URL=self._fleet.server.url, CELERY_MLX_GATEWAY_FILES=str(self._folder / "files")
            ),
        )


@dataclass
class Reader:
    """One client: what it asks, what it has, and how often it came back."""

    prompt: str
    text: str = ""
    last: str = ""
    resumed: int = 0
    sent_again: int = 0
    is_whole: bool = False
    errors: list[str] = field(default_factory=list)

    async def read(self, client: httpx.AsyncClient, urls: Sequence[str], body: dict[str, Any]) -> None:
        """Read until the answer is whole, from one gateway after the other."""
        turn = random.randrange(len(urls))
        while not self.is_whole:
            headers = {"last-event-id": self.last} if self.last else {}
            try:
                await self._read_once(client, urls[turn % len(urls)], body, headers)
            except httpx.HTTPError as error:
                self.errors.append(type(error).__name__)
            if not self.is_whole:
                turn += 1
                self.resumed += bool(self.last)
                self.sent_again += not self.last
                await asyncio.sleep(RETRY_S)

    async def _read_once(
        self, client: httpx.AsyncClient, url: str, body: dict[str, Any], headers: dict[str, str]
    ) -> None:
        sent = {**body, "prompt": self.prompt}
        async with client.stream("POST", url + PATH, json=sent, headers=headers) as answer:
            if answer.status_code != 200:
                self.errors.append(str(answer.status_code))
                return
            event_id = ""
            async for line in answer.aiter_lines():
                if line.startswith("id: "):
                    event_id = line.removeprefix("id: ")
                elif line.startswith("data: "):
                    self._take(event_id, line.removeprefix("data: "))

    def _take(self, event_id: str, data: str) -> None:
        if data == "[DONE]":
            self.is_whole = True
            return
        event = json.loads(data)
        if "error" in event:
            self.errors.append(event["error"]["code"])
            return
        self.text += event["choices"][0]["text"]
        self.last = event_id


def main() -> int:
    """Run the streams, and judge what they have."""
    options = _options()
    with (
        tempfile.TemporaryDirectory(prefix="streams-") as name,
        Fleet(Path(name), options.workers, options.slots) as fleet,
        Gateways(fleet, Path(name), options.gateways) as gateways,
    ):
        readers = [Reader(prompt=f"stream {number}") for number in range(options.streams)]
        begun = time.monotonic()
        storm = Storm(fleet, gateways, readers, options)
        storm.start()
        asyncio.run(_read_all(readers, gateways.urls, options))
        storm.stop()
        took_s = time.monotonic() - begun
    wrong = _wrong(readers, options.tokens)
    resumed, again = sum(reader.resumed for reader in readers), sum(reader.sent_again for reader in readers)
    errors = Counter(error for reader in readers for error in reader.errors)
    print(
        f"{options.streams} streams of {options.tokens} tokens, killed {dict(storm.killed)}, {took_s:.0f} s: {len(wrong)} wrong; "
        f"clients went on {resumed} times, and sent {again} requests again that had no event yet; they met {dict(errors)}"
    )
    for about in wrong[:10]:
        print(f"wrong: {about}")
    return 1 if wrong or not storm.killed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos.streams", description=__doc__)
    parser.add_argument("--streams", type=int, default=100, help="streams at once (100)")
    parser.add_argument("--tokens", type=int, default=600, help="tokens of each (600)")
    parser.add_argument("--step-ms", type=int, default=100, help="time of a step of the engine (100)")
    parser.add_argument("--kills", type=int, default=9, help="kills, of each kind in turn (9)")
    parser.add_argument("--gateways", type=int, default=2, help="gateways (2)")
    parser.add_argument("--workers", type=int, default=2, help="workers (2)")
    parser.add_argument("--slots", type=int, default=60, help="slots of each worker (60)")
    parser.add_argument("--seed", type=int, default=1, help="of who is killed (1)")
    return parser.parse_args()


class Storm(threading.Thread):
    """Kills somebody at even steps of what the clients have read."""

    def __init__(
        self, fleet: Fleet, gateways: Gateways, readers: Sequence[Reader], options: argparse.Namespace
    ) -> None:
        super().__init__(daemon=True)
        self._fleet, self._readers, self._count = fleet, readers, options.kills
        self._whole = sum(len(expected(reader.prompt, options.tokens)) for reader in readers)
        self._ending = threading.Event()
        self.killed: Counter[str] = Counter()
        chance = random.Random(options.seed)
        self._kinds: dict[str, Callable[[], object]] = {
            "gateway": lambda: gateways.kill(chance.choice(gateways.ports)),
            "worker": lambda: fleet.kill_worker(chance.choice(fleet.nodes)),
            "redis": self._kill_redis,
        }

    def run(self) -> None:
        """Kill until :meth:`stop`, or until all kills are done."""
        while not self._ending.wait(0.1):
            read = sum(len(reader.text) for reader in self._readers) / self._whole
            done = self.killed.total()
            if done < self._count and read >= 0.9 * (done + 1) / (self._count + 1):
                name = list(self._kinds)[done % len(self._kinds)]
                self._kinds[name]()
                self.killed[name] += 1
            self._fleet.supervise()

    def _kill_redis(self) -> None:
        self._fleet.server.kill()
        self._fleet.server.start()

    def stop(self) -> None:
        """Kill no more."""
        self._ending.set()
        self.join()


async def _read_all(readers: Sequence[Reader], urls: Sequence[str], options: argparse.Namespace) -> None:
    body = {"model": f"fake:{options.step_ms}", "max_tokens": options.tokens, "stream": True}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=60, limits=limits) as client, asyncio.timeout(END_S):
        await asyncio.gather(*(reader.read(client, urls, body) for reader in readers))


def expected(prompt: str, tokens: int) -> str:
    """The text of an undisturbed run."""
    from tasks.engine.fake import fake_text

    return fake_text(prompt, None, tokens)


def _wrong(readers: Sequence[Reader], tokens: int) -> list[str]:
    return [
        f"{reader.prompt}: {len(reader.text)} characters, {reader.text[:200]!r}"
        for reader in readers
        if not reader.is_whole or reader.text != expected(reader.prompt, tokens)
    ]


if __name__ == "__main__":
    sys.exit(main())
