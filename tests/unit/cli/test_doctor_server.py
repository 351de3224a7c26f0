"""What doctor says of Redis, from a stand-in that speaks its protocol and answers as it is told."""

from __future__ import annotations

import socketserver
import threading
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tasks.cli.diagnosis.server import server_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tasks.cli.diagnosis.line import Line

OLD = b"redis_version:5.0.14\r\nrole:master\r\n"


def app(url: str) -> Any:
    """As much of a Celery app as says where Redis is."""
    conf = {"broker_url": url, "broker_read_url": None, "result_backend": url}
    beside = ("broker_use_ssl", "redis_backend_use_ssl", "broker_transport_options", "result_backend_transport_options")
    return SimpleNamespace(main="other", conf=SimpleNamespace(**conf, **dict.fromkeys(beside)))


def bulk(value: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(value), value)


@contextmanager
def stand_in(answers: Mapping[str, bytes]) -> Iterator[str]:
    """The URL of a server with these answers by command, and +OK to all others; an empty answer is silence."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while line := self.rfile.readline():
                words = []
                for _ in range(int(line[1:])):
                    length = int(self.rfile.readline()[1:])
                    words.append(self.rfile.read(length + 2)[:-2])
                self.wfile.write(answers.get(words[0].decode().upper(), b"+OK\r\n"))

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"redis://:secret@127.0.0.1:{listening.server_address[1]}/0"
        finally:
            listening.shutdown()
            thread.join()


def only_failure(url: str, timeout_s: float = 30.0) -> Line:
    (line,) = [line for line in server_lines(app(url), timeout_s) if line.level == "failure"]
    assert "\n" not in line.says
    assert "secret" not in line.says
    assert line.remedy
    return line


def test_a_server_that_is_fit() -> None:
    """A server that answers is reported with its time and its version."""
    info = bulk(b"redis_version:7.2.4\r\nvalkey_version:9.1.2\r\nrole:master\r\n")
    with stand_in({"PING": b"+PONG\r\n", "INFO": info}) as url:
        lines = list(server_lines(app(url), 30.0))
    assert [line.level for line in lines] == ["ok", "ok"]
    assert "answers in" in lines[0].says
    assert lines[1].says == "Valkey 9.1.2, as Redis 7.2.4"


def test_nobody_listens() -> None:
    """A refused connection is one line that says to start Redis."""
    with stand_in({}) as url:
        pass
    line = only_failure(url)
    assert "refused" in line.says
    assert "REDIS_URL" in line.remedy


@pytest.mark.parametrize(
    ("answers", "remedy"),
    [
        ({"AUTH": b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"}, "password"),
        ({"PING": b"-NOAUTH Authentication required.\r\n"}, "password"),
        ({"PING": b"-NOPERM User default has no permissions to run the 'ping' command\r\n"}, "security.md"),
        ({"PING": b"-LOADING Redis is loading the dataset in memory\r\n"}, "wait"),
        ({"PING": b"+PONG\r\n", "INFO": b"-ERR unknown command 'INFO', with args\r\n"}, "rename-command"),
        ({"PING": b""}, "firewall"),
    ],
)
def test_refusals_have_their_remedies(answers: Mapping[str, bytes], remedy: str) -> None:
    """A wrong password, a missing one, missing rights, a loading server and silence are told apart."""
    with stand_in(answers) as url:
        assert remedy in only_failure(url, 0.2 if remedy == "firewall" else 30.0).remedy


def test_tls_where_there_is_none() -> None:
    """A TLS connection to a server without TLS is one line that names TLS."""
    with stand_in({}) as url:
        line = only_failure(url.replace("redis://", "rediss://"), 3.0)
    assert "TLS" in line.remedy


def test_an_application_without_redis() -> None:
    """An app whose broker is another one is told to start doctor for this one."""
    (line,) = server_lines(app("amqp://guest@localhost//"))
    assert line.level == "failure"
    assert "celery -A tasks doctor" in line.remedy


@pytest.mark.parametrize(
    ("info", "says", "remedy"),
    [
        (OLD, "version 5.0.14 is too old", "6.2"),
        (b"redis_version:7.0.1\r\nredis_mode:cluster\r\n", "cluster mode", "without cluster mode"),
        (b"redis_version:7.0.1\r\nserver_mode:sentinel\r\n", "it is a Sentinel", "the primary"),
        (b"redis_version:7.0.1\r\nrole:slave\r\nmaster_host:a\r\nmaster_port:1\r\n", "a replica of a:1", "the primary"),
        # Some services hide their limit.
        (b"redis_version:7.0.1\r\nmaxmemory:0\r\nmaxmemory_policy:volatile-lru\r\n", "volatile-lru", "noeviction"),
        (b"redis_version:7.0.1\r\nloading:1\r\n", "loading", "wait"),
    ],
)
def test_what_a_server_says_against_itself(info: bytes, says: str, remedy: str) -> None:
    """Each thing that makes a server unusable is one failure with its remedy."""
    with stand_in({"PING": b"+PONG\r\n", "INFO": bulk(info)}) as url:
        line = only_failure(url)
    assert says in line.says
    assert remedy in line.remedy


def test_a_server_that_does_not_say_its_version() -> None:
    """A server without a version is a warning, not a failure."""
    with stand_in({"PING": b"+PONG\r\n", "INFO": bulk(b"role:master\r\n")}) as url:
        assert [line.level for line in server_lines(app(url), 30.0)] == ["ok", "warning"]
