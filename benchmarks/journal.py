"""Tokens per second through journals, at 1 to 256 streams: one script call for a whole flush, and one call for each stream.

python benchmarks/journal.py [TOKENS]      (on an embedded server of its own)
"""

from __future__ import annotations

import sys
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

from tasks import keys
from tasks.demo.embedded import EmbeddedServer
from tasks.journal import scripts
from tasks.journal.connection import connect, endpoint
from tasks.journal.reader import Stored, follow
from tasks.journal.writer import Append, Journal
from tasks.messages.journal import End, Token

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis import Redis

    from tasks.journal.connection import Endpoint

STREAMS = (1, 16, 64, 256)


def one_call(client: Redis) -> Callable[[list[Append]], object]:
    """The product's way."""
    return Journal(client).append


def one_call_each(client: Redis) -> Callable[[list[Append]], object]:
    """The same script in a pipeline, once for each stream."""

    def append(batch: list[Append]) -> object:
        pipeline = client.pipeline(transaction=False)
        for item in batch:
            name, entry_id = keys.stream(item.task_id), f"{item.attempt}-{item.n}"
            pipeline.evalsha(scripts.APPEND.digest, 1, name, 60_000, entry_id, item.payload, item.closes, item.nonce)
        return pipeline.execute()

    return append


def measure(
    client: Redis, where: Endpoint, append: Callable[[list[Append]], object], streams: int, *, rounds: int, read: bool
) -> float:
    """Tokens per second; with ``read``, until readers in this process have them all."""
    client.flushall()
    names = [f"request-{i}" for i in range(streams)]
    nonces = [Journal(client).claim(name, "bench@here#1").nonce for name in names]

    def drain(name: str) -> None:
        for _ in follow(where, name, Stored):
            pass

    readers = [threading.Thread(target=drain, args=(name,)) for name in names if read]
    for reader in readers:
        reader.start()
    started = time.perf_counter()
    for index in range(rounds):
        token = Token(attempt=1, index=index, ids=[index], text=" word")
        append([Append.of(name, index + 1, token, nonce) for name, nonce in zip(names, nonces, strict=True)])
    end = End(attempt=1, index=rounds, finish_reason="stop", usage={})
    append([Append.of(name, rounds + 1, end, nonce) for name, nonce in zip(names, nonces, strict=True)])
    for reader in readers:
        reader.join()
    return streams * rounds / (time.perf_counter() - started)


def main(tokens: int) -> None:
    """Print the table."""
    with EmbeddedServer() as server, closing(connect(server.url)) as client:
        where = endpoint(server.url)
        print(f"{'streams':>7}  {'one call':>10}  {'call each':>10}  {'one call, read':>14}   tokens/s")
        for streams in STREAMS:
            rounds = max(10, tokens // streams)
            written = measure(client, where, one_call(client), streams, rounds=rounds, read=False)
            each = measure(client, where, one_call_each(client), streams, rounds=rounds, read=False)
            read = measure(client, where, one_call(client), streams, rounds=rounds, read=True)
            print(f"{streams:>7}  {written:>10,.0f}  {each:>10,.0f}  {read:>14,.0f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
