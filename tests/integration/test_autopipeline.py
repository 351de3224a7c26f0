"""Scripts of many threads on one connection: few sends, each reply to its own call, and no call lost with a connection."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from tasks.errors import BrokerUnavailable
from tasks.server.connection import connect, translated
from tasks.server.pipeline import MOST_CALLS, AutoPipeline, _Call
from tasks.server.resp import pack
from tasks.server.script import Script
from tasks.server.trouble import is_busy
from tests.support import wait_until

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
        wait_until(lambda: len(pipeline._waiting) == len(others))
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
        at_last = 0
        while not done.wait(0.005):
            # A call is sent twice at most, so the eight that were out at the last cut have to be answered before the next.
            if int(redis_client.get("counter") or 0) >= at_last + 24:
                redis_client.client_kill_filter(_type="normal", skipme=True)
                at_last = int(redis_client.get("counter") or 0)  # this thread may have stood still since it counted

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


def test_what_may_not_run_twice(
    pipeline: AutoPipeline, monkeypatch: pytest.MonkeyPatch, redis_client: redis.Redis
) -> None:
    """When a reply is lost, a call of this kind ends with that; one of the other kind, in the same send, runs again."""
    redis_client.script_load(COUNT.source)
    ask, lost = pipeline._ask, [True]

    def lose(batch: Any) -> Any:
        replies = ask(batch)
        if lost:
            lost.pop()
            raise RedisConnectionError("the reply was lost")
        return replies

    monkeypatch.setattr(pipeline, "_ask", lose)
    once, again = (_Call(pack("INCR", name), name == "again") for name in ("once", "again"))
    replies = pipeline._exchange([once, again])
    assert isinstance(replies[0], RedisConnectionError)
    assert replies[1] == 2
    assert redis_client.mget("once", "again") == ["1", "2"]
    lost.append(True)
    with pytest.raises(RedisConnectionError, match="the reply was lost"):
        COUNT(pipeline.once, ("counter",), ())
    assert redis_client.get("counter") == "1"
    assert COUNT(pipeline.once, ("counter",), ()) == 2


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


def test_a_server_that_was_restarted(pipeline: AutoPipeline, redis_server: EmbeddedServer) -> None:
    """What may not be sent twice is not lost with a connection that the server's restart has closed before."""
    assert COUNT(pipeline.once, ("n",), ()) == 1
    redis_server.restart()
    assert COUNT(pipeline.once, ("n",), ()) == 1


def test_what_cannot_be_sent(pipeline: AutoPipeline) -> None:
    """Half a character is the error of who calls with it, and of nobody else."""
    with pytest.raises(UnicodeEncodeError):
        ECHO(pipeline, (), ("\ud800",))
    assert ECHO(pipeline, (), ("a",)) == b"a"


def test_one_who_is_interrupted(pipeline: AutoPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that ends the speaking thread, as a signal's handler may raise it, leaves the others an error and a way on."""
    assert ECHO(pipeline, (), ("a",)) == b"a"
    ask = pipeline._ask

    def interrupt(batch: Any) -> Any:
        ask(batch)
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "_ask", interrupt)
        with pytest.raises(SystemExit):
            ECHO(pipeline, (), ("b",))
    assert ECHO(pipeline, (), ("c",)) == b"c"


def test_one_who_is_interrupted_while_it_waits(pipeline: AutoPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that waits for its turn and is torn away takes the turn with it neither before nor after it has come."""
    assert ECHO(pipeline, (), ("a",)) == b"a"
    held = Held(pipeline, monkeypatch)
    wait = _Call.wait

    def tear(call: _Call) -> None:
        if b"torn early" in call.packed:
            raise SystemExit
        wait(call)
        if b"torn late" in call.packed and not call.done:
            raise SystemExit

    monkeypatch.setattr(_Call, "wait", tear)

    def call(text: str) -> Any:
        try:
            return ECHO(pipeline, (), (text,))
        except SystemExit:
            return None

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(call, "first")
        assert held.speaking.wait(30)
        assert pool.submit(call, "torn early").result(30) is None
        late = pool.submit(call, "torn late")
        wait_until(lambda: len(pipeline._waiting) == 1)
        last = pool.submit(call, "last")
        wait_until(lambda: len(pipeline._waiting) == 2)
        held.go.set()
        assert [first.result(30), late.result(30), last.result(30)] == [b"first", None, b"last"]
    assert pipeline._leader is None


#: A script that runs until it is killed; for no longer, in case that nobody does.
MINUTE_US = "60000000"
SPIN = """
local until_us = tonumber(ARGV[1])
local function now()
  local clock = redis.call('TIME')
  return clock[1] * 1000000 + clock[2]
end
local started = now()
while now() - started < until_us do end
"""


def test_a_busy_server(pipeline: AutoPipeline, redis_url: str, redis_client: redis.Redis) -> None:
    """While somebody's script runs for too long Redis refuses everything: the calls wait for its end, and each is done once."""
    redis_client.config_set("busy-reply-threshold", 20)
    COUNT(pipeline, ("n",), ())
    with ThreadPoolExecutor(3) as pool:
        spinning = pool.submit(redis_client.eval, SPIN, 0, MINUTE_US)
        with closing(connect(redis_url)) as other:
            wait_until(lambda: _refuses(other), about="a server that is busy")
            with (
                pytest.raises(BrokerUnavailable, match=r"BUSY .*wait until the script that runs there has ended"),
                translated("x"),
            ):
                other.get("n")
            sent = pipeline.sends
            calls = [pool.submit(COUNT, way, ("n",), ()) for way in (pipeline, pipeline.once)]
            wait_until(lambda: pipeline.sends > sent + len(calls), about="a call that was refused, and asks again")
            other.script_kill()
        assert {call.result(60) for call in calls} == {2, 3}
        with pytest.raises(ResponseError, match="killed"):
            spinning.result(60)
    redis_client.config_set("busy-reply-threshold", 5000)


def test_a_server_that_stays_busy(redis_url: str, redis_client: redis.Redis) -> None:
    """After a while it counts as away, for its callers to do what they do then."""
    redis_client.config_set("busy-reply-threshold", 20)
    with closing(AutoPipeline(redis_url, busy_s=0.2)) as impatient, ThreadPoolExecutor(1) as pool:
        COUNT(impatient, ("n",), ())
        spinning = pool.submit(redis_client.eval, SPIN, 0, MINUTE_US)
        with closing(connect(redis_url)) as other:
            wait_until(lambda: _refuses(other), about="a server that is busy")
            with pytest.raises(RedisConnectionError, match="BUSY"):
                COUNT(impatient, ("n",), ())
            other.script_kill()
        with pytest.raises(ResponseError, match="killed"):
            spinning.result(60)
    redis_client.config_set("busy-reply-threshold", 5000)


def _refuses(client: redis.Redis) -> bool:
    try:
        client.get("n")
    except ResponseError as error:
        return is_busy(error)
    return False
