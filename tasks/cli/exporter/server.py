"""The HTTP server of ``metrics``: one page at ``/metrics``, made for each scrape, one scrape at a time."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, ClassVar

from tasks.metrics.exposition import CONTENT_TYPE

if TYPE_CHECKING:
    from collections.abc import Callable

INDEX = b'<title>celery-mlx</title><a href="/metrics">metrics</a>\n'
#: A connection is closed after this time in which its client neither asks nor reads.
IDLE_S = 30.0


class MetricsServer(ThreadingMixIn, TCPServer):
    """Serves a page that is made for each request.

    Args:
        address: the address to listen at; IPv4, IPv6 or a name.
        port: the port; 0 lets the system choose.
        page: makes the body of ``/metrics``; never called twice at once, so memory does not grow with clients.

    Raises:
        OSError: it cannot listen there.
    """

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: str, port: int, page: Callable[[], bytes]) -> None:
        family, _, _, _, where = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        self.address_family = family
        self._page = page
        self._lock = threading.Lock()
        super().__init__((str(where[0]), int(where[1])), _Handler)

    @property
    def url(self) -> str:
        """The address of the metrics."""
        host, port = self.server_address[:2]
        name = f"[{host!s}]" if self.address_family is socket.AF_INET6 else str(host)
        return f"http://{name}:{port!s}/metrics"

    def page(self) -> bytes:
        """The page as it is now."""
        with self._lock:
            return self._page()

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: a client that goes away is not worth a traceback, and the page's own errors are answered with 500."""


class _Handler(BaseHTTPRequestHandler):
    server: MetricsServer
    timeout: ClassVar[float] = IDLE_S
    protocol_version = "HTTP/1.1"
    server_version = "celery-mlx"
    sys_version = ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._answer(200, CONTENT_TYPE, self.server.page())
        elif path == "/":
            self._answer(200, "text/html; charset=utf-8", INDEX)
        else:
            self._answer(404, "text/plain; charset=utf-8", b"not here: see /metrics\n")

    do_HEAD = do_GET  # noqa: N815  (http.server's name)

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: a scrape every few seconds is no news."""
