"""Servers that cannot be used: each is one line at start with the remedy, and the exit status that tells whether to try again."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
import redis

from tasks.demo.embedded import EmbeddedServer, find_server
from tasks.demo.process import GuardedProcess
from tasks.errors import BrokerMisconfigured, BrokerUnavailable
from tasks.server.requirements import MONITOR, PRODUCER, SWEEP, WORKER, require_server
from tests.certificates import certificates
from tests.refusals import EX_CONFIG, EX_UNAVAILABLE, explained, refused, start
from tests.support import ROOT, lasting_port, wait_until
from tests.tls_relay import relay
from worker_config.settings import environment_with

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tasks.server.requirements import Requirements

pytestmark = pytest.mark.xdist_group("servers")


def refusal(url: str, requirements: Requirements = WORKER) -> BrokerUnavailable:
    """The error about a server that cannot be used."""
    with pytest.raises(BrokerUnavailable) as caught:
        require_server(url, requirements)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.fixture(scope="module")
def no_client() -> Iterator[EmbeddedServer]:
    """A server without CLIENT, as some services have it."""
    with EmbeddedServer(config=['rename-command CLIENT ""']) as server:
        yield server


@pytest.fixture(scope="module")
def cluster() -> Iterator[EmbeddedServer]:
    """A server in cluster mode."""
    with EmbeddedServer(config=["cluster-enabled yes", f"cluster-port {lasting_port()}"]) as server:
        yield server


@pytest.fixture(scope="module")
def evicting() -> Iterator[EmbeddedServer]:
    """A server that makes room by deleting keys."""
    with EmbeddedServer(config=["maxmemory 100mb", "maxmemory-policy allkeys-lru"]) as server:
        yield server


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    """The URL of a port with an HTTP server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"redis://:secret@127.0.0.1:{server.server_port}/0"
        server.shutdown()
        thread.join()


class TestCommands:
    """Each command refuses, with a line and a status of its own; the page about trouble quotes the line."""

    def test_a_worker_whose_server_lacks_a_command(self, no_client: EmbeddedServer) -> None:
        """The missing command is named. The server may be corrected meanwhile, so a service manager tries again."""
        code, message = start(REDIS_URL=no_client.url)
        says = "Redis cannot be used (it has no command CLIENT): remove rename-command from its configuration"
        assert (code, says in message) == (EX_UNAVAILABLE, True)
        assert explained("redis-lacks-a-command", says)

    def test_a_beat_whose_server_evicts(self, evicting: EmbeddedServer) -> None:
        """A policy under which requests may vanish is refused by beat too."""
        code, message = refused("beat", "--pidfile=", REDIS_URL=evicting.url)
        assert code == EX_UNAVAILABLE
        assert message.endswith("): CONFIG SET maxmemory-policy noeviction, and in its configuration")
        assert explained("redis-evicts-keys", message.partition("Redis cannot be used ")[2])

    def test_a_flower_at_a_cluster(self, cluster: EmbeddedServer) -> None:
        """Another server has to be named, so a service manager does not try again."""
        code, message = refused("flower", "--port=0", REDIS_URL=cluster.url)
        assert code == EX_CONFIG
        assert explained("redis-is-in-cluster-mode", message.partition("Redis cannot be used ")[2])

    def test_the_fleet_at_a_web_server(self, web: str) -> None:
        """``fleet`` says what listens there instead."""
        done = celery("fleet", "--once", url=web)
        assert done.returncode == EX_CONFIG
        assert done.stderr.startswith("Error: redis://:***@127.0.0.1:")
        assert (
            "(an HTTP server listens there): correct host and port in REDIS_URL (docs/troubleshooting.md#"
            in done.stderr
        )

    def test_the_metrics_of_nobody(self) -> None:
        """A server that is away is told from one that will never do."""
        done = celery("metrics", "--once", url="redis://:secret@127.0.0.1:1/0")
        assert done.returncode == EX_UNAVAILABLE
        assert "Connection refused): start it there, or set REDIS_URL to where it is" in done.stderr
        assert "secret" not in done.stderr

    def test_a_producer_at_a_cluster(self, cluster: EmbeddedServer) -> None:
        """A producer's error says that trying again changes nothing."""
        program = (
            "from tasks import generate\ntry: generate.delay(prompt='x', model='fake:1')\n"
            "except Exception as error: print(type(error).__name__, error.retryable, error)"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env=environment_with(REDIS_URL=cluster.url),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stdout.startswith("BrokerMisconfigured False redis://:***@127.0.0.1:")
        assert "(it is in cluster mode" in done.stdout


def celery(*command: str, url: str) -> subprocess.CompletedProcess[str]:
    """One of the commands that ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "celery", "-A", "tasks", *command],
        cwd=ROOT,
        env=environment_with(REDIS_URL=url),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("requirements", [PRODUCER, WORKER, SWEEP, MONITOR])
def test_a_server_as_it_should_be(redis_url: str, requirements: Requirements) -> None:
    """A plain server has all that is needed, and nothing is written to it."""
    require_server(redis_url, requirements)
    with contextlib.closing(redis.Redis.from_url(redis_url)) as client:
        assert client.dbsize() == 0


def test_a_producer_needs_no_client_command(no_client: EmbeddedServer) -> None:
    """What a worker needs beyond a producer's commands is not asked of a producer's server."""
    require_server(no_client.url, PRODUCER)
    error = refusal(no_client.url, SWEEP)
    assert (type(error), "no command CLIENT" in str(error)) == (BrokerUnavailable, True)


@pytest.mark.parametrize("command", ["EVALSHA", "BRPOP", "XADD", "SISMEMBER"])
def test_a_server_without_another_command(command: str) -> None:
    """Whichever command is missing is named."""
    with EmbeddedServer(config=[f'rename-command {command} ""']) as server:
        assert f"it has no command {command})" in str(refusal(server.url))


def test_a_command_that_is_refused() -> None:
    """A command that the server has, and an ACL or a proxy refuses, is named too."""
    with EmbeddedServer(config=["user worker on >pw ~* &* +@all -client|unblock"]) as server:
        error = refusal(server.url.replace(f":{server.password}@", "worker:pw@"))
    assert "client|unblock" in str(error)
    assert str(error).endswith("give this user the rules of its role (docs/security.md)")


def test_a_policy_that_evicts_nothing_yet() -> None:
    """A policy is refused without a limit as well: services hide their limit, and it can be set at any time."""
    with EmbeddedServer(config=["maxmemory-policy volatile-lru"]) as server:
        assert "its maxmemory-policy is volatile-lru" in str(refusal(server.url, PRODUCER))


def test_a_server_that_loads_its_data(tmp_path: Path) -> None:
    """A server that is still loading will do soon."""
    place = f'dir "{tmp_path}"'
    with EmbeddedServer(config=[place]) as server, contextlib.closing(redis.Redis.from_url(server.url)) as client:
        client.mset({f"key {number}": os.urandom(100) for number in range(1500)})
        client.save()
    slow = ["key-load-delay 20000", "loading-process-events-interval-bytes 1024"]
    with EmbeddedServer(config=[place, *slow]) as server:
        error = refusal(server.url)
    assert type(error) is BrokerUnavailable
    assert str(error).endswith("(it is loading its data): wait until it has read it")


def test_a_sentinel(tmp_path: Path) -> None:
    """A Sentinel's port is told from that of the server that it watches."""
    port = lasting_port()
    (tmp_path / "sentinel.conf").write_text(f"port {port}\nbind 127.0.0.1\nsentinel monitor box 127.0.0.1 1 1\n")
    command = [str(find_server()), str(tmp_path / "sentinel.conf"), "--sentinel"]
    process = GuardedProcess(command, log=tmp_path / "log", grace_s=5)
    try:
        wait_until(lambda: _listens(port), about="a Sentinel")
        error = refusal(f"redis://127.0.0.1:{port}/0", PRODUCER)
    finally:
        process.stop()
    assert isinstance(error, BrokerMisconfigured)
    assert str(error).endswith("(it is a Sentinel): set REDIS_URL to the primary that it watches")


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def test_a_database_that_is_not_there(redis_url: str) -> None:
    """The database's number is to be corrected where the URL is."""
    error = refusal(f"{redis_url.removesuffix('/0')}/99")
    assert isinstance(error, BrokerMisconfigured)
    assert str(error).endswith("end REDIS_URL with the number of one of its databases, as in /0")


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority's certificate and a server's."""
    return certificates(tmp_path_factory.mktemp("tls"), "own")


@pytest.fixture(scope="module")
def tls_port(pems: Path, session_server: EmbeddedServer) -> Iterator[int]:
    """A port that speaks TLS in front of a real server."""
    with relay(session_server.port, pems / "server.pem", pems / "server.key") as port:
        yield port


class TestTls:
    """TLS at one end only."""

    def test_missing_in_the_url(self, tls_port: int) -> None:
        """A URL without TLS for a server with it."""
        error = refusal(f"redis://:secret@127.0.0.1:{tls_port}/0")
        assert isinstance(error, BrokerMisconfigured)
        assert str(error).endswith("the server speaks TLS): write rediss:// in REDIS_URL")
        assert explained("tls-at-one-end-only", "the server speaks TLS): write rediss:// in REDIS_URL")

    def test_missing_at_the_server(self, redis_url: str) -> None:
        """A URL with TLS for a server without it."""
        error = refusal(redis_url.replace("redis://", "rediss://"))
        assert isinstance(error, BrokerMisconfigured)
        assert str(error).endswith("the server does not speak TLS): write redis:// in REDIS_URL")

    def test_an_unknown_authority(self, tls_port: int) -> None:
        """A certificate that nobody vouches for is told from a server without TLS."""
        error = refusal(f"rediss://:secret@127.0.0.1:{tls_port}/0")
        assert isinstance(error, BrokerMisconfigured)
        assert "name its certificate: rediss://...?ssl_ca_certs=FILE" in str(error)

    def test_a_file_that_is_not_there(self, tls_port: int) -> None:
        """A file that the URL names is named in the error."""
        error = refusal(f"rediss://:secret@127.0.0.1:{tls_port}/0?ssl_ca_certs=/nowhere.pem")
        assert "(ssl_ca_certs names /nowhere.pem, which is not a file): correct it in REDIS_URL" in str(error)

    @pytest.mark.usefixtures("redis_client")
    def test_at_both_ends(self, tls_port: int, pems: Path, session_server: EmbeddedServer) -> None:
        """With TLS at both ends, and the authority, the server will do."""
        base = f"rediss://:{session_server.password}@127.0.0.1:{tls_port}/0"
        require_server(f"{base}?ssl_ca_certs={pems / 'ca.pem'}", WORKER)


def test_something_else_listens(web: str) -> None:
    """Neither the password nor a traceback is in what is said of a port with another server."""
    error: Any = refusal(web)
    assert isinstance(error, BrokerMisconfigured)
    assert "secret" not in str(error)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=_greet, args=(listening,))
        thread.start()
        error = refusal(f"redis://127.0.0.1:{listening.getsockname()[1]}/0")
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()
    assert "(something else than Redis listens there): correct host and port in REDIS_URL" in str(error)


def _greet(listening: socket.socket) -> None:
    """As servers for SSH and mail do: say a line to whoever comes."""
    with contextlib.suppress(OSError):
        while True:
            accepted, _ = listening.accept()
            with accepted, contextlib.suppress(OSError):
                accepted.sendall(b"SSH-2.0-test\r\n")
                accepted.recv(1024)
