"""``python -m benchmarks.gateway_streams``: many HTTP streams open in one gateway on one core.

A writer puts a token into each journal, at the rate of a model; a token is the time at which it was written. So what a client
reads says how long it took, and no engine has to be as fast as a thousand streams are.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import redis

from benchmarks.figures import p50
from tasks.demo.embedded import EmbeddedServer, free_port
from tasks.demo.process import GuardedProcess
from tasks.gateway.access_key import LOCAL
from tasks.gateway.record import Record
from tasks.gateway.store import Store
from tasks.journal.items import Append
from tasks.journal.writer import Journal
from tasks.messages.journal import End, Token
from worker_config.settings import environment_with

if TYPE_CHECKING:
    from collections.abc import Sequence

KIB = 1024
START_S = 60.0
#: Streams before the measured ones: what the gateway takes once, as its threads, is no stream's.
WARM = 32


class Writer(threading.Thread):
    """Writes all journals, in one call for each round, as the publisher of a worker does.

    Args:
        client: Redis.
        names: the requests.
        rounds: tokens of each.
        every_s: the time between two tokens.
    """

    def __init__(self, client: redis.Redis, names: Sequence[str], rounds: int, every_s: float) -> None:
        super().__init__(daemon=True)
        self._journal = Journal(client)
        self._names, self._rounds, self._every_s = names, rounds, every_s
        self._nonces = [self._journal.claim(name, "bench@here#1").nonce for name in names]
        #: Rounds that began late: the writer is what was measured then.
        self.late = 0

    def run(self) -> None:
        """Write all rounds, and the ends."""
        due = time.monotonic()
        for index in range(self._rounds):
            due += self._every_s
            pause_s = due - time.monotonic()
            self.late += pause_s < 0
            time.sleep(max(0.0, pause_s))
            token = Token(attempt=1, index=index, ids=[index], text=f"{time.monotonic():.6f} ")
            self._append(index + 1, token)
        self._append(self._rounds + 1, End(attempt=1, index=self._rounds, finish_reason="stop", usage={}))

    def _append(self, entry: int, said: Token | End) -> None:
        self._journal.append(
            [Append.of(name, entry, said, nonce) for name, nonce in zip(self._names, self._nonces, strict=True)]
        )


class Stream:
    """One client: a bare socket, which costs less than the gateway does."""

    def __init__(self) -> None:
        self.waits_s: list[float] = []
        self.is_whole = False

    async def read(self, port: int, name: str) -> None:
        """Read a stream to its end."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET /v1/chat/completions/{name}?stream=true HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        async for line in reader:
            if line.startswith(b"data: [DONE]"):
                self.is_whole = True
                break
            if line.startswith(b"data: "):
                now = time.monotonic()
                for choice in json.loads(line[6:])["choices"]:
                    self.waits_s += [now - float(said) for said in choice["delta"].get("content", "").split()]
        writer.close()


def main() -> int:
    """Open the streams, have them written, and report."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="streams-") as folder, EmbeddedServer() as server:
        port = free_port()
        gateway = GuardedProcess(
            [sys.executable, "-m", "celery", "-A", "tasks", "gateway", "--port", str(port)],
            log=Path(folder) / "gateway.log",
            grace_s=10,
            env=environment_with(REDIS_URL=server.url, CELERY_MLX_GATEWAY_FILES=folder),
        )
        try:
            with closing(redis.Redis.from_url(server.url)) as client:
                return asyncio.run(_measure(client, gateway.pid, port, options))
        finally:
            gateway.stop()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway_streams", description=__doc__)
    parser.add_argument("--streams", type=int, default=1_000, help="open streams (1000)")
    parser.add_argument("--per-s", type=float, default=20.0, help="tokens of each in a second (20)")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long (20)")
    parser.add_argument("--cpu", type=int, default=None, help="the only core of the gateway, on Linux")
    return parser.parse_args()


async def _measure(client: redis.Redis, pid: int, port: int, options: argparse.Namespace) -> int:
    await _until_it_listens(port)
    process = _server(pid)
    if options.cpu is not None:
        process.cpu_affinity([options.cpu])
    names = [f"chatcmpl-{number:032x}" for number in range(options.streams + WARM)]
    store = Store(client)
    for name in names:
        store.admit(Record(id=name, kind="chat", model="bench", created=int(time.time()), owner=LOCAL.id), LOCAL)
    warm = Writer(client, names[:WARM], 20, 0.01)
    warm.start()
    await asyncio.gather(*(Stream().read(port, name) for name in names[:WARM]))
    idle = process.memory_info().rss

    rounds = int(options.seconds * options.per_s)
    writer = Writer(client, names[WARM:], rounds, 1 / options.per_s)
    streams = [Stream() for _ in names[WARM:]]
    reading = [asyncio.create_task(stream.read(port, name)) for stream, name in zip(streams, names[WARM:], strict=True)]
    while len(client.pubsub_channels("celery-mlx:stream:*")) < options.streams:
        await asyncio.sleep(0.2)
    await asyncio.sleep(1)
    opened = process.memory_info().rss
    spent, begun = sum(process.cpu_times()[:2]), time.monotonic()
    writer.start()
    await asyncio.gather(*reading)
    took_s = time.monotonic() - begun
    share = (sum(process.cpu_times()[:2]) - spent) / took_s
    waits = sorted(1e3 * wait for stream in streams for wait in stream.waits_s)
    whole = sum(stream.is_whole and len(stream.waits_s) == rounds for stream in streams)
    print(
        f"{options.streams} streams of {options.per_s:g} tokens/s for {took_s:.1f} s (the writer was late {writer.late} times): "
        f"{whole} whole, {len(waits) / took_s:.0f} tokens/s, {share:.0%} of a core; "
        f"{(opened - idle) / KIB / options.streams:.1f} KiB a stream once open, "
        f"{(process.memory_info().rss - idle) / KIB / options.streams:.1f} at the end; "
        f"from journal to client p50 {p50(waits):.1f} ms, p99 {waits[int(0.99 * len(waits))]:.1f} ms"
    )
    return 0 if whole == options.streams else 1


async def _until_it_listens(port: int) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            assert time.monotonic() < deadline, f"no gateway after {START_S:g} s"
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return


def _server(pid: int) -> psutil.Process:
    """The gateway's own process, which a guard may have started."""
    found = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return max(found, key=lambda process: process.memory_info().rss)


if __name__ == "__main__":
    sys.exit(main())
