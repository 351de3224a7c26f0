"""What ``celery -A tasks flower`` lacks: one line where it cannot listen. The command itself is Flower's own."""

from __future__ import annotations

import sys
from typing import NoReturn

from tasks.errors import pointer

#: sysexits.h: a service is not available.
EX_UNAVAILABLE = 69


def require_port() -> None:
    """End the process if Flower's port is taken, before Flower tries it and ends in a traceback of its web server's."""
    from tornado.netutil import bind_sockets
    from tornado.options import options

    if options.unix_socket:
        return
    try:
        sockets = bind_sockets(options.port, address=options.address)
    except OSError as error:
        _refuse(f"cannot listen at {options.address or 'any address'}, port {options.port} ({error.strerror or error})")
    for each in sockets:
        each.close()


def _refuse(message: str) -> NoReturn:
    remedy = "choose others with --address and --port"
    print(f"celery-mlx: {message}: {remedy}{pointer('The port is taken')}", file=sys.__stderr__, flush=True)
    raise SystemExit(EX_UNAVAILABLE)
