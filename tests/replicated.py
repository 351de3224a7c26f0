"""A primary, a replica that can be cut off from it, and a Sentinel that promotes the replica: real servers, each a process."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack, closing, suppress
from typing import TYPE_CHECKING, Any, Self

import redis

from tasks.demo.embedded import EmbeddedServer, find_server
from tasks.demo.process import GuardedProcess
from tests.support import lasting_port, wait_until

if TYPE_CHECKING:
    from pathlib import Path

MASTER_NAME = "the-primary"


class Pipe:
    """Passes on what is sent between a replica and its primary, until it is cut: then neither hears of it."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._flowing = threading.Event()
        self._flowing.set()
        self._sockets: list[socket.socket] = [self._listener]
        self._is_closed = False
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Pass nothing on any more, and close nothing."""
        self._flowing.clear()

    def close(self) -> None:
        """Close everything."""
        with self._lock:
            self._is_closed = True
            for sock in self._sockets:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
                sock.close()

    def _accept(self) -> None:
        while True:
            try:
                ours, _ = self._listener.accept()
            except OSError:
                return
            try:
                theirs = socket.create_connection(("127.0.0.1", self._target))
            except OSError:  # the primary is away
                ours.close()
                continue
            with self._lock:
                if self._is_closed:
                    ours.close()
                    theirs.close()
                    return
                self._sockets += (ours, theirs)
            for source, target in ((ours, theirs), (theirs, ours)):
                threading.Thread(target=self._pass, args=(source, target), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if not self._flowing.is_set():
                    return
                target.sendall(data)


class Replicated:
    """Use it as a context manager.

    Args:
        folder: where the Sentinel keeps its configuration.
        password: the servers' password.
    """

    def __init__(self, folder: Path, password: str) -> None:
        self._folder = folder
        self._password = password
        self._ended = ExitStack()
        self.primary = EmbeddedServer(
            password=password, config=[f'masterauth "{password}"', "repl-diskless-sync-delay 0"]
        )
        self.replica: EmbeddedServer
        self.pipe: Pipe
        self.sentinel_port = lasting_port()

    @property
    def url(self) -> str:
        """The address that producers and workers are given."""
        return f"sentinel://:{self._password}@127.0.0.1:{self.sentinel_port}/0?master_name={MASTER_NAME}"

    def cut(self) -> None:
        """From now on the replica lags."""
        self.pipe.cut()

    def promote(self) -> None:
        """Kill the primary, and wait until the Sentinel names the replica."""
        self.primary.kill()
        with closing(redis.Redis(port=self.sentinel_port, decode_responses=True)) as sentinel:

            def named() -> bool:
                found: Any = sentinel.sentinel_get_master_addr_by_name(MASTER_NAME)
                return bool(found) and int(found[1]) == self.replica.port

            # Not before: on a busy machine a primary that stands still for a moment is none that is down.
            sentinel.sentinel_set(MASTER_NAME, "down-after-milliseconds", 2000)
            wait_until(named, about="a promotion")

    def __enter__(self) -> Self:
        with self._ended:
            self._ended.enter_context(self.primary)
            self.pipe = Pipe(self.primary.port)
            self._ended.callback(self.pipe.close)
            self.replica = EmbeddedServer(
                password=self._password,
                config=[f"replicaof 127.0.0.1 {self.pipe.port}", f'masterauth "{self._password}"'],
            )
            self._ended.enter_context(self.replica)
            with closing(redis.Redis.from_url(self.replica.url)) as client:
                wait_until(lambda: client.info("replication")["master_link_status"] == "up")
            self._start_sentinel()
            self._ended = self._ended.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.close()

    def _start_sentinel(self) -> None:
        configuration = self._folder / "sentinel.conf"
        lines = [
            *(f"port {self.sentinel_port}", "bind 127.0.0.1", f'dir "{self._folder}"'),
            f"sentinel monitor {MASTER_NAME} 127.0.0.1 {self.primary.port} 1",
            f"sentinel auth-pass {MASTER_NAME} {self._password}",
            f"sentinel down-after-milliseconds {MASTER_NAME} 600000",
            # By then the Sentinel has the replica follow the primary without the pipe.
            f"sentinel failover-timeout {MASTER_NAME} 300000",
        ]
        configuration.write_text("\n".join(lines) + "\n", encoding="utf-8")
        program = [str(find_server()), str(configuration), "--sentinel"]
        process = GuardedProcess(program, log=self._folder / "sentinel.log", grace_s=5)
        self._ended.callback(process.stop)
        with closing(redis.Redis(port=self.sentinel_port, decode_responses=True)) as sentinel:

            def knows_replica() -> bool:
                with suppress(redis.ConnectionError):
                    found: Any = sentinel.sentinel_slaves(MASTER_NAME)
                    return any(int(replica["port"]) == self.replica.port for replica in found)
                return False

            wait_until(knows_replica, about="a replica that the Sentinel knows")
