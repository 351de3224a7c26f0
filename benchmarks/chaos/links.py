"""A program that stands between processes and Redis: TCP links that can go silent, forget their connections, or be cut.

``python -m benchmarks.chaos.links PORT COUNT`` opens COUNT links to a port of this machine and prints their ports on one
line. It reads one command a line from its input and ends with it:

| command | what happens |
|---|---|
| ``LINK silent`` | nothing passes in either direction, in old and new connections |
| ``LINK half`` | what the server sends does not pass; what the clients send does |
| ``LINK forget`` | connections that are open now never pass a byte again, and are never closed; new ones work |
| ``LINK cut`` | all connections are closed |
| ``LINK well`` | everything passes again, and what was held back arrives |
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self

CHUNK_BYTES = 1 << 16


#: Never set. Whatever waits for it is kept: a forgotten connection that were collected as garbage would be closed.
NEVER = asyncio.Event()


@dataclass(slots=True, eq=False)
class Connection:
    """One client's connection and its way to the server."""

    writers: tuple[asyncio.StreamWriter, asyncio.StreamWriter]
    forgotten: bool = False


@dataclass(slots=True)
class Link:
    """One way to the server.

    Args:
        to_server: set while clients' bytes pass.
        to_client: set while the server's bytes pass.
    """

    port: int
    to_server: asyncio.Event = field(default_factory=asyncio.Event)
    to_client: asyncio.Event = field(default_factory=asyncio.Event)
    connections: set[Connection] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass a client's bytes to the server and the server's back."""
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:  # the server is being restarted: the client sees a connection that ends at once
            writer.close()
            return
        connection = Connection((writer, server_writer))
        self.connections.add(connection)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_pump(reader, server_writer, self.to_server, connection))
                both.create_task(_pump(server_reader, writer, self.to_client, connection))
        finally:
            self.connections.discard(connection)

    def obey(self, command: str) -> None:
        """Carry out one command of the table above."""
        match command:
            case "silent":
                self.to_server.clear()
                self.to_client.clear()
            case "half":
                self.to_client.clear()
            case "forget":
                for connection in self.connections:
                    connection.forgotten = True
            case "cut":
                for connection in list(self.connections):
                    for writer in connection.writers:
                        writer.close()
            case "well":
                self.to_server.set()
                self.to_client.set()
            case _:
                raise ValueError(f"unknown command: {command}")


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passes: asyncio.Event, connection: Connection
) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            await passes.wait()
            if connection.forgotten:
                await NEVER.wait()
            writer.write(data)
            await writer.drain()
    writer.close()


async def _main(port: int, count: int) -> None:
    links = [Link(port) for _ in range(count)]
    servers = []
    for link in links:
        link.obey("well")
        servers.append(await asyncio.start_server(link.serve, "127.0.0.1", 0))
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        number, command = line.split()
        links[int(number)].obey(command)


class Links:
    """The program above, for as long as this object is used as a context manager.

    Args:
        port: the server's.
        count: how many links.
    """

    def __init__(self, port: int, count: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.chaos.links", str(port), str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self.ports = [int(word) for word in self._process.stdout.readline().split()]

    def tell(self, link: int, command: str) -> None:
        """Have one link do what the command says."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{link} {command}\n")
        self._process.stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


if __name__ == "__main__":
    # Its thread that reads the input does not end with the loop.
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main(int(sys.argv[1]), int(sys.argv[2])))
