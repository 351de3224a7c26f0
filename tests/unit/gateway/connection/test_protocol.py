"""Connections of clients that stall, on a real server."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn

from tasks.gateway.connection.protocol import Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

STALL_S = 0.3
REQUEST = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"
WAIT_S = 30.0


@asynccontextmanager
async def server(application: Callable[..., Awaitable[None]]) -> AsyncIterator[int]:
    """The port of a server whose clients may stall for a moment alone."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        http: Any = partial(Protocol, stall_s=STALL_S)
        running = uvicorn.Server(uvicorn.Config(application, http=http, log_config=None, ws="none", lifespan="off"))
        serving = asyncio.create_task(running.serve([listening]))
        try:
            yield listening.getsockname()[1]
        finally:
            running.should_exit = True
            await serving


async def answer_slowly(_: Any, __: Any, send: Any) -> None:
    """An answer that takes longer than a client may stall."""
    await asyncio.sleep(2 * STALL_S)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.mark.parametrize("parts", [(), (REQUEST[:20],), (REQUEST, REQUEST[:20])])
def test_a_head_that_does_not_come(parts: tuple[bytes, ...]) -> None:
    """A connection ends that says nothing, or half of its first or of its next head; an answer may take its time."""

    async def main() -> bytes:
        async with server(answer_slowly) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for part in parts:
                writer.write(part)
                if part == REQUEST:
                    assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
            try:
                return await reader.read()
            finally:
                writer.close()

    assert asyncio.run(asyncio.wait_for(main(), WAIT_S)) == b""


def test_an_answer_that_nobody_reads() -> None:
    """Its connection is cut, and whoever gives it hears that the client has left."""
    heard = asyncio.Event()

    async def pour(_: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _number in range(1_000):
            await send({"type": "http.response.body", "body": bytes(2**16), "more_body": True})
        assert (await receive())["type"] == "http.disconnect"
        heard.set()

    async def main() -> None:
        async with server(pour) as port:
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(REQUEST)
                await heard.wait()

    asyncio.run(asyncio.wait_for(main(), WAIT_S))
