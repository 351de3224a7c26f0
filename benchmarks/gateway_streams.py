"""``python -m benchmarks.gateway_streams``: many HTTP streams open in one gateway on one core.

A writer puts a token into each journal, at the rate of a model; a token is the number of its round. So what a client reads says
when it was written, and no engine has to be as fast as a thousand streams are. Writer and clients share the other core: they do
as little as they can.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import redis

from benchmarks.figures import p50
from benchmarks.processes import guarded, processor_s
from tasks.demo.embedded import EmbeddedServer, free_port
from tasks.demo.process import GuardedProcess
from tasks.gateway.records.access_key import LOCAL
from tasks.gateway.records.record import Record
from tasks.gateway.records.store import Store
from tasks.journal.items import Append
from tasks.journal.writer import Journal
from tasks.messages.journal import End, Token
from worker_config.settings import environment_with

if TYPE_CHECKING:
    from collections.abc import Sequence

KIB = 1024
START_S = 60.0
CONTENT, DONE = re.compile(rb'"content":"([0-9 ]*)"'), b"data: [DONE]"
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
        #: When each round was written.
        self.written_at: list[float] = []
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
            self.written_at.append(time.monotonic())
            self._append(index + 1, Token(attempt=1, index=index, ids=[index], text=f"{index} "))
        self._append(self._rounds + 1, End(attempt=1, index=self._rounds, finish_reason="stop", usage={}))

    def _append(self, entry: int, said: Token | End) -> None:
        first = Append.of(self._names[0], entry, said)  # all others are the same but for their names
        self._journal.append(
            [
                Append(name, 1, entry, first.payload, first.closes, nonce)
                for name, nonce in zip(self._names, self._nonces, strict=True)
            ]
        )


class Stream(asyncio.Protocol):
    """One client: it looks for tokens alone, and costs less than the gateway does."""

    def __init__(self, name: str) -> None:
        self._request = f"GET /v1/chat/completions/{name}?stream=true HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()
        self._rest = b""
        #: When each token came.
        self.came_at: list[float] = []
        self.rounds: list[int] = []
        self.done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def open(self, port: int) -> None:
        """Connect, and ask."""
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", port)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Take the tokens of whole events."""
        whole, _, self._rest = (self._rest + data).rpartition(b"\n\n")
        rounds = [int(said) for said in b"".join(CONTENT.findall(whole)).split()]
        self.rounds += rounds
        self.came_at += [time.monotonic()] * len(rounds)
        if not self.done.done() and (whole.endswith(DONE) or DONE in self._rest):
            self.done.set_result(True)

    def connection_lost(self, _: Exception | None) -> None:
        """It was cut."""
        if not self.done.done():
            self.done.set_result(False)


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
    process = guarded(pid)
    if options.cpu is not None:
        process.cpu_affinity([options.cpu])
    names = [f"chatcmpl-{number:032x}" for number in range(options.streams + WARM)]
    store = Store(client)
    for name in names:
        store.admit(Record(id=name, kind="chat", model="bench", created=int(time.time()), owner=LOCAL.id), LOCAL)
    warm = Writer(client, names[:WARM], 20, 0.01)
    streams = await _open(port, names[:WARM])
    warm.start()
    await asyncio.gather(*(stream.done for stream in streams))
    idle = process.memory_info().rss

    rounds = int(options.seconds * options.per_s)
    writer = Writer(client, names[WARM:], rounds, 1 / options.per_s)
    streams = await _open(port, names[WARM:])
    while len(client.pubsub_channels("celery-mlx:stream:*")) < options.streams:
        await asyncio.sleep(0.2)
    await asyncio.sleep(1)
    opened = process.memory_info().rss
    spent_s, begun = processor_s(process), time.monotonic()
    writer.start()
    ended = await asyncio.gather(*(stream.done for stream in streams))
    took_s, spent_s = time.monotonic() - begun, processor_s(process) - spent_s
    whole = sum(done and stream.rounds == [*range(rounds)] for done, stream in zip(ended, streams, strict=True))
    tokens = sum(len(stream.rounds) for stream in streams)
    waits = sorted(
        1e3 * (came - writer.written_at[number])
        for stream in streams
        for number, came in zip(stream.rounds, stream.came_at, strict=True)
    )
    each_us = 1e6 * spent_s / tokens
    print(
        f"{options.streams} streams of {options.per_s:g} tokens/s for {took_s:.1f} s (the writer was late {writer.late} times): "
        f"{whole} whole, {tokens / took_s:.0f} tokens/s, {spent_s / took_s:.0%} of a core: {each_us:.1f} us of processor time a "
        f"token, so a core bears {1e6 / each_us / options.per_s:.0f} such streams; "
        f"{(opened - idle) / KIB / options.streams:.1f} KiB a stream once open, "
        f"{(process.memory_info().rss - idle) / KIB / options.streams:.1f} at the end; "
        f"from journal to client p50 {p50(waits):.1f} ms, p99 {waits[int(0.99 * len(waits))]:.1f} ms"
    )
    return 0 if whole == options.streams else 1


async def _open(port: int, names: Sequence[str]) -> list[Stream]:
    streams = [Stream(name) for name in names]
    for stream in streams:
        await stream.open(port)
    return streams


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


if __name__ == "__main__":
    sys.exit(main())
