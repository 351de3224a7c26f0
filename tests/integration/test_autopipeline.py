"""Scripts of many threads on one connection: few sends, each reply to its own call, and no call lost with a connection."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from tasks.autopipeline import MOST_CALLS, AutoPipeline
from tasks.lua import Script

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from tasks.demo.embedded import EmbeddedServer

ECHO = Script("return ARGV[1]")
COUNT = Script("return redis.call('INCR', KEYS[1])")
REFUSE = Script("return redis.error_reply('REFUSED ' .. ARGV[1])")
THREADS = 40


@pytest.fixture
def pipeline(redis_url: str) -> Iterator[AutoPipeline]:
    with closing(AutoPipeline(redis_url)) as pipeline:
        yield pipeline


class Held:
    """Has the first thread that speaks wait, so that all others are there when it goes on."""

    def __init__(self, pipeline: AutoPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        self.speaking = threading.Event()
        exchange = pipeline._exchange

        def wait(commands: Any) -> Any:
            self.speaking.set()
            assert self.go.wait(30)
            return exchange(commands)

        monkeypatch.setattr(pipeline, "_exchange", wait)


def test_a_call_alone(pipeline: AutoPipeline) -> None:
    """A lone call is one send, after the one that has the server know the script."""
    assert [ECHO(pipeline, (), (str(number),)) for number in range(3)] == [b"0", b"1", b"2"]
    assert pipeline.sends == pipeline.calls
    assert pipeline.calls <= 5


def test_together(pipeline: AutoPipeline, monkeypatch: pytest.MonkeyPatch, redis_client: redis.Redis) -> None:
    """What is called while one speaks goes out as one send; everybody gets the own reply, errors included."""
    redis_client.script_load(ECHO.source)
    redis_client.script_load(REFUSE.source)
    held = Held(pipeline, monkeypatch)

    def call(number: int) -> Any:
        try:
            return (REFUSE if number % 5 == 0 else ECHO)(pipeline, (), (number,))
        except ResponseError as error:
            return str(error)

    with ThreadPoolExecutor(THREADS) as pool:
        first = pool.submit(call, 1)
        assert held.speaking.wait(30)
        others = {number: pool.submit(call, number) for number in range(2, THREADS)}
        while len(pipeline._waiting) < len(others):
            assert held.speaking.wait(30)
        held.go.set()
        assert first.result(30) == b"1"
        for number, other in others.items():
            assert other.result(30) == (f"REFUSED {number}" if number % 5 == 0 else str(number).encode())
    assert pipeline.calls == THREADS - 1 <= MOST_CALLS
    assert pipeline.sends == 2


def test_a_connection_that_is_cut(pipeline: AutoPipeline, redis_client: redis.Redis) -> None:
    """Calls of many threads, while their connection is cut again and again, are all answered."""
    COUNT(pipeline, ("counter",), ())
    done = threading.Event()

    def work() -> int:
        for _ in range(50):
            COUNT(pipeline, ("counter",), ())
        return 50

    def cut() -> None:
        while not done.wait(0.01):
            redis_client.client_kill_filter(_type="normal", skipme=True)

    cutter = threading.Thread(target=cut)
    with ThreadPoolExecutor(8) as pool:
        workers = [pool.submit(work) for _ in range(8)]
        cutter.start()
        answered = sum(worker.result(60) for worker in workers)
        done.set()
        cutter.join()
    assert answered == 400
    # A call whose reply was lost has run twice: the scripts that come this way may.
    assert int(redis_client.get("counter") or 0) >= 401


def test_a_server_that_is_away(pipeline: AutoPipeline, redis_server: EmbeddedServer) -> None:
    """Every call says so at once; after the server's return they work again, though it has forgotten the scripts."""
    assert ECHO(pipeline, (), ("a",)) == b"a"
    redis_server.stop()
    with ThreadPoolExecutor(4) as pool:
        for call in [pool.submit(ECHO, pipeline, (), ("b",)) for _ in range(4)]:
            with pytest.raises(RedisConnectionError):
                call.result(30)
    redis_server.start()
    assert ECHO(pipeline, (), ("c",)) == b"c"


def test_what_cannot_be_sent(pipeline: AutoPipeline) -> None:
    """Half a character is the error of who calls with it, and of nobody else."""
    with pytest.raises(UnicodeEncodeError):
        ECHO(pipeline, (), ("\ud800",))
    assert ECHO(pipeline, (), ("a",)) == b"a"


def test_one_who_is_interrupted(pipeline: AutoPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that ends the speaking thread, as a signal's handler may raise it, leaves the others an error and a way on."""
    assert ECHO(pipeline, (), ("a",)) == b"a"
    ask = pipeline._ask

    def interrupt(packed: bytes, count: int) -> Any:
        ask(packed, 0)
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "_ask", interrupt)
        with pytest.raises(SystemExit):
            ECHO(pipeline, (), ("b",))
    assert ECHO(pipeline, (), ("c",)) == b"c"
