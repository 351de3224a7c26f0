"""Relay: tokens through journals and pub/sub, one message for each token, beside bare pipelining of the same writes."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.bench import Row
from benchmarks.figures import at_least
from tasks.client.reader.reading import Stored
from tasks.client.reader.stream import follow
from tasks.journal.items import Append
from tasks.journal.writer import Journal
from tasks.messages.journal import End, Token, encode
from tasks.server import keys
from tasks.server.connection import endpoint
from tasks.server.pipeline import AutoPipeline

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis import Redis

    from benchmarks.bench import Bench, Measure
    from benchmarks.figures import Findings, Metrics

STREAMS = (1, 16, 64, 256)
#: The same writes: an entry and a message, both or neither.
BARE = "redis.call('XADD', KEYS[1], ARGV[1], 'd', ARGV[2]) redis.call('PUBLISH', KEYS[1], ARGV[2])"


def measure(bench: Bench, found: Findings) -> None:
    """For each number of streams: written by ours and bare, with nobody reading and with one reader each."""
    rates: dict[str, list[float | None]] = {}
    for streams in STREAMS:
        relay = _Relay(bench, streams, rounds=max(bench.size(30, 3), bench.size(16_000, 500) // streams))
        contenders: dict[str, Measure] = {
            "ours": partial(relay.ours, read=False),
            "bare": partial(relay.bare, read=False),
            "ours, read": partial(relay.ours, read=True),
            "bare, read": partial(relay.bare, read=True),
        }
        samples = bench.in_turns(f"relay, {streams} streams", contenders)
        judged = streams == 64
        about = f"{streams} streams: tokens/s, ours / bare pipelined EVALSHA"
        found.figure(
            about, samples.ratio("ours", "bare", "tokens_per_s"), target=at_least(0.5, 0.8) if judged else None
        )
        found.figure(
            f"{about}, one reader each",
            samples.ratio("ours, read", "bare, read", "tokens_per_s"),
            target=at_least(0.7, 0.85) if judged else None,
        )
        for name in contenders:
            found.measured(f"{streams} streams, {name}", samples.values(name, "tokens_per_s"), "tokens/s")
            rates.setdefault(name, []).append(samples.median(name, "tokens_per_s"))
    found.chart("Relayed, by streams", "tokens/s", [str(stream) for stream in STREAMS], rates)


class _Relay:
    """So many streams at once, each of which gets one token in each round."""

    def __init__(self, bench: Bench, streams: int, rounds: int) -> None:
        self._client: Redis = bench.client
        #: As a worker's publisher has it.
        self._scripts = AutoPipeline(bench.server.url)
        self._where = endpoint(bench.server.url)
        self._streams = streams
        self._rounds = rounds

    def ours(self, number: int, *, read: bool) -> Metrics:
        """One call of the journal's script for each round, as the publisher makes it."""
        journal = Journal(self._client, self._scripts)
        names = self._names(number)
        nonces = [journal.claim(name, "bench@here#1").nonce for name in names]

        def follow_one(name: str) -> None:
            for _ in follow(self._where, name, Stored):
                pass

        with _threads(follow_one, names if read else []) as join:
            self._wait_for_readers(len(names) if read else 0)
            started = time.perf_counter()
            for index in range(self._rounds):
                token = Token(attempt=1, index=index, ids=[index], text=" word")
                journal.append(
                    [Append.of(name, index + 1, token, nonce) for name, nonce in zip(names, nonces, strict=True)]
                )
            end = End(attempt=1, index=self._rounds, finish_reason="stop", usage={})
            journal.append(
                [Append.of(name, self._rounds + 1, end, nonce) for name, nonce in zip(names, nonces, strict=True)]
            )
            join()
            return self._rate(started, names)

    def bare(self, number: int, *, read: bool) -> Metrics:
        """One pipeline of as many calls for each round; its reader counts messages and looks into none."""
        digest = self._client.script_load(BARE)
        names = self._names(number)
        streams = [keys.stream(name) for name in names]
        pubsub: Any = self._client.pubsub()  # type: ignore[no-untyped-call]

        def count(_: str) -> None:
            heard = 0
            while heard < len(streams) * self._rounds:
                message = pubsub.get_message(timeout=1)
                heard += message is not None and message["type"] == "message"

        if read:
            pubsub.subscribe(*streams)
        with _threads(count, names[:1] if read else []) as join:
            self._wait_for_readers(len(names) if read else 0)
            started = time.perf_counter()
            for index in range(self._rounds):
                payload = encode(Token(attempt=1, index=index, ids=[index], text=" word"))
                pipeline = self._client.pipeline(transaction=False)
                for stream in streams:
                    pipeline.evalsha(digest, 1, stream, f"1-{index + 1}", payload)
                pipeline.execute()
            join()
            rate = self._rate(started, names)
        pubsub.close()
        return rate

    def _wait_for_readers(self, count: int) -> None:
        deadline = time.monotonic() + 120
        while len(self._client.pubsub_channels(keys.stream("*"))) < count and time.monotonic() < deadline:
            time.sleep(0.001)

    def _names(self, number: int) -> list[str]:
        return [f"relay-{number}-{stream}" for stream in range(self._streams)]

    def _rate(self, started: float, names: list[str]) -> Metrics:
        rate = self._streams * self._rounds / (time.perf_counter() - started)
        self._client.delete(*(keys.stream(name) for name in names))
        return {"tokens_per_s": rate}


@contextmanager
def _threads(work: Any, names: list[str]) -> Iterator[Any]:
    """A thread for each name; gives what waits for them all."""
    threads = [threading.Thread(target=work, args=(name,), daemon=True) for name in names]
    for thread in threads:
        thread.start()

    def join() -> None:
        for thread in threads:
            thread.join()

    yield join


ROW = Row("relay", "Tokens through journals and pub/sub, one message for each token, beside bare pipelining.", measure)
