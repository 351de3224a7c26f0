"""How a gateway listens."""

from __future__ import annotations

import socket

import pytest

from tasks.gateway.connection.server import listen


def test_events_go_out_at_once() -> None:
    """asyncio switches Nagle's algorithm off for sockets that say they are TCP's, and for no others."""
    with listen("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP


def test_a_port_that_is_taken() -> None:
    """It is an error, and leaves no socket behind."""
    with listen("127.0.0.1", 0) as listening, pytest.raises(OSError, match="in use"):
        listen("127.0.0.1", listening.getsockname()[1])
