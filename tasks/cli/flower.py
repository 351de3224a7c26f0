"""Checks before ``celery -A tasks flower`` starts: its port, and Redis. The command itself is Flower's own."""

from __future__ import annotations

import os
import socket
from typing import Any

from tasks.errors import BrokerUnavailable, refuse
from tasks.server.requirements import MONITOR, require_server


def require_redis(app: Any) -> None:
    """End the process if Redis cannot be used; Flower would start and try again for ever, with a traceback for each try."""
    try:
        require_server(app, MONITOR)
    except BrokerUnavailable as error:
        refuse(error.exit_status, str(error), error.entry)


def require_port() -> None:
    """End the process if Flower's port is taken, before Flower tries it and ends in a traceback of its web server's."""
    from tornado.options import options

    if options.unix_socket:
        return
    address, port = options.address or "", options.port
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        socket.create_server((address, port), family=family).close()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error
        where = f"{address or 'any address'}, port {port}"
        message = f"cannot listen at {where} ({reason}): choose others with --address and --port"
        refuse(os.EX_UNAVAILABLE, message, "The port is taken")
