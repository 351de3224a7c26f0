"""The HTTP server: uvicorn, whose end all open answers hear of."""

from __future__ import annotations

import logging
import socket
from functools import partial
from typing import TYPE_CHECKING

import uvicorn

from tasks.gateway.connection.protocol import Protocol

if TYPE_CHECKING:
    from types import FrameType

    from tasks.gateway.connection.closing import Closing
    from tasks.gateway.connection.outermost import Outermost

#: Answers that do not end within this time after the gateway was told to stop are cut.
STOP_S = 10
#: Connections that wait to be accepted.
BACKLOG = 2048
#: An open stream takes a socket. The most that macOS lets every process have (OPEN_MAX).
OPEN_FILES = 10_240


class Server(uvicorn.Server):
    """One gateway's server.

    Args:
        application: answers.
        closing: is told when a signal ends the server.
        certificate: the files of TLS's certificate and key; empty without TLS.
        stall_s: how long clients may stall.
    """

    def __init__(self, application: Outermost, closing: Closing, certificate: tuple[str, str], stall_s: float) -> None:
        self._closing = closing
        certfile, keyfile = certificate
        super().__init__(
            uvicorn.Config(
                application,
                http=partial(Protocol, stall_s=stall_s),  # type: ignore[arg-type]
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="on",
                ws="none",
                timeout_graceful_shutdown=STOP_S,
                ssl_certfile=certfile or None,
                ssl_keyfile=keyfile or None,
            )
        )
        logging.getLogger("uvicorn").setLevel(logging.WARNING)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal: stop taking requests, and have open answers end."""
        super().handle_exit(sig, frame)
        self._closing.begin()


def listen(address: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        OSError: it cannot.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    # asyncio has small writes go out at once on sockets that say they are TCP's. Otherwise an event waits for the client's
    # acknowledgement of the one before it: 40 ms.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((address, port))
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening
