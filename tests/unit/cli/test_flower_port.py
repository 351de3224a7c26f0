"""Flower's port is looked at before Flower takes it."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from tasks.cli.flower import require_port

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Looks at a port as if Flower had read these options."""

    def run(port: int, unix_socket: str = "") -> None:
        options = SimpleNamespace(address="127.0.0.1", port=port, unix_socket=unix_socket)
        monkeypatch.setattr("tornado.options.options", options)
        require_port()

    return run


def test_a_free_port_is_let_go(look: Callable[..., None]) -> None:
    """After the look the port is as free as before."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
    look(port)
    socket.create_server(("127.0.0.1", port)).close()


def test_a_taken_port(look: Callable[..., None], capfd: pytest.CaptureFixture[str]) -> None:
    """One line and an exit status; a socket's path instead of a port is Flower's own business."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit) as ended:
            look(port)
        look(port, unix_socket="/run/flower.sock")
    assert ended.value.code == 69
    assert capfd.readouterr().err.count("\n") == 1
