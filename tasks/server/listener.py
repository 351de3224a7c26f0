"""Finds out which program listens at an address at which a client of Redis has failed, for the error's text."""

from __future__ import annotations

import socket
import ssl
from typing import Literal, TypeAlias

Listener: TypeAlias = Literal["TLS", "Redis", "HTTP", "other", ""]

WAIT_S = 1.0
#: A request to an HTTP server, and a command that every Redis answers with an error.
QUESTION = b"GET / HTTP/1.0\r\n\r\n"


def listener(host: str, port: int) -> Listener:
    """Name the program that listens there; empty if none does, or if it says nothing."""
    address = (host, port)
    try:
        if _speaks_tls(address):
            return "TLS"
        with socket.create_connection(address, WAIT_S) as connection:
            connection.sendall(QUESTION)
            answer = connection.recv(64)
    except OSError:
        return ""
    if answer.startswith(b"HTTP/"):
        return "HTTP"
    return "Redis" if answer.startswith((b"-", b"+")) else "other" if answer else ""


def _speaks_tls(address: tuple[str, int]) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection(address, WAIT_S) as connection:
        try:
            context.wrap_socket(connection).close()
        except ssl.SSLError as error:
            # A server that wants another certificate, or another version, says so in TLS.
            return "ALERT" in (error.reason or "")
        except OSError:
            return False
        return True
