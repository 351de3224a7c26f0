"""A real ``celery -A tasks gateway`` for tests, and clients of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING, Any, Self

import httpx
from openai import OpenAI

from tests.support import MARK, ROOT, assert_gone, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

WAIT_S = 60.0


class GatewayProcess:
    """One gateway on a free port of its own; a context manager that ends it."""

    def __init__(self, log: Path, *options: str, env: Mapping[str, str] | None = None, port: int = 0) -> None:
        self.log_path = log
        self._options, self._env, self._port = options, env or {}, port
        self._mark = uuid.uuid4().hex
        #: Where it keeps files, unless its environment says otherwise.
        self.files = str(log.with_suffix(".files"))
        self._clients: list[OpenAI] = []

    def __enter__(self) -> Self:
        # With as few open files as macOS gives every program.
        few = ("/bin/sh", "-c", 'ulimit -S -n 256; exec "$@"', "sh")
        command = [
            *few,
            sys.executable,
            "-m",
            "celery",
            "-A",
            "tasks",
            "gateway",
            "--port",
            str(self._port),
            *self._options,
        ]
        with self.log_path.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, MARK: self._mark, "CELERY_MLX_GATEWAY_FILES": self.files, **self._env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self.url = self._address()
        except BaseException:
            self.stop()  # a context manager that is not entered is not left either
            raise
        return self

    def _address(self) -> str:
        """What it says once it listens."""
        said = wait_until(
            lambda: [line for line in self.log().splitlines() if line.startswith("OpenAI")] or self.process.poll(),
            timeout_s=120,
            about="the gateway",
        )
        assert isinstance(said, list), f"it ended with {said}: {self.log()}"
        return said[0].split()[-1]

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            client.close()
        self.stop()
        print(self.log())

    def log(self) -> str:
        """What it has said."""
        return self.log_path.read_text(encoding="utf-8")

    def kill(self) -> None:
        """``kill -9``."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it by SIGTERM; nothing of it may stay behind."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)
        assert_gone(self._mark)

    @property
    def root(self) -> str:
        """Its address without ``/v1``."""
        return self.url.removesuffix("/v1")

    def openai(self, key: str = "none", **options: Any) -> OpenAI:
        """OpenAI's own client; it is closed with the gateway."""
        made = OpenAI(base_url=self.url, api_key=key, **{"max_retries": 0, "timeout": WAIT_S, **options})
        self._clients.append(made)
        return made

    def connect(self) -> socket.socket:
        """A bare connection, for what no client's library sends."""
        host, _, port = self.root.removeprefix("http://").partition(":")
        return socket.create_connection((host, int(port)), timeout=WAIT_S)

    def http(self, **options: Any) -> httpx.Client:
        """A plain client."""
        return httpx.Client(base_url=self.root, timeout=WAIT_S, **options)


def read_until(connection: socket.socket, text: bytes, times: int = 1) -> bytes:
    """What comes until this text has come so often, or until the connection ends."""
    found = b""
    while found.count(text) < times and (part := connection.recv(1 << 16)):
        found += part
    return found


def events(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    """The id and the data of each event of a stream."""
    event_id = ""
    for line in lines:
        if line.startswith("id: "):
            event_id = line.removeprefix("id: ")
        elif line.startswith("data: "):
            data = line.removeprefix("data: ")
            yield event_id, data if data == "[DONE]" else json.loads(data)
