"""A line between this process's programs and a server, which can go silent, lose its calls, or take no more."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit


class Line:
    """Carries TCP connections to a server, for as long as it is used as a context manager.

    Attributes:
        url: the server's URL by way of this line.
        calls: connections that were carried so far.
        refused: connections that were closed at once.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._server = (str(parts.hostname), int(parts.port or 6379))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._calls: list[tuple[socket.socket, socket.socket]] = []
        self._living: set[socket.socket] = set()
        #: Clear while nothing passes to the client, or to the server; what comes meanwhile passes later.
        self._to_client, self._to_server = threading.Event(), threading.Event()
        self._refuses = False
        #: Held while a call is taken or all are ended, so that none is taken in between.
        self._taking = threading.Lock()
        self.calls = self.refused = 0
        user, at, _ = parts.netloc.rpartition("@")
        self.url = f"{parts.scheme}://{user}{at}127.0.0.1:{self._listener.getsockname()[1]}{parts.path}"

    def __enter__(self) -> Self:
        self.heal()
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.refuse()
        self._to_client.set()  # no thread waits any more
        self._to_server.set()

    def heal(self) -> None:
        """Carry everything again."""
        self._refuses = False
        self._to_client.set()
        self._to_server.set()

    def go_silent(self) -> None:
        """Keep all calls, also new ones, and carry nothing."""
        self._to_client.clear()
        self._to_server.clear()

    def go_half(self) -> None:
        """Carry what clients send, and none of the answers."""
        self._to_client.clear()

    def forget(self) -> None:
        """Lose what is sent on the calls of now, and close none of them; new calls go through."""
        self._living.clear()

    def refuse(self) -> None:
        """End all calls, and each new one at once."""
        with self._taking:
            self._refuses = True
            self._cut()

    def _cut(self) -> None:
        calls, self._calls = self._calls, []
        for call in calls:
            for end in call:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                with self._taking:
                    self._take(near)

    def _take(self, near: socket.socket) -> None:
        if self._refuses:
            near.close()
            self.refused += 1
            return
        try:
            far = socket.create_connection(self._server)
        except OSError:  # the server is away
            near.close()
            return
        self.calls += 1
        self._calls.append((near, far))
        self._living |= {near, far}
        for source, target, passes in ((near, far, self._to_server), (far, near, self._to_client)):
            threading.Thread(target=self._carry, args=(source, target, passes), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, passes: threading.Event) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                passes.wait()
                if source in self._living:
                    target.sendall(data)
        with suppress(OSError):
            if source in self._living:
                target.shutdown(socket.SHUT_WR)
