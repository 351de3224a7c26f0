"""The paths that the gateway's routes see."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tasks.gateway.connection.outermost import Outermost


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        (b"/v1/models", "/v1/models"),
        (b"//v1//models/", "/v1/models"),
        (b"/v1/models/%2Fsrv%2Fmodels%2Fqwen", "/v1/models//srv/models/qwen"),
        (b"/v1/models//acme%2Fqwen/", "/v1/models/acme/qwen"),
        (b"/", "/"),
    ],
)
def test_a_slash_of_a_name_stays(written: bytes, seen: str) -> None:
    """Doubled and final slashes are a client's carelessness; one that is written as %2F is a part of a model's name."""
    found: list[str] = []

    async def inside(scope: Any, _receive: Any, _send: Any) -> None:
        found.append(scope["path"])

    decoded = written.decode().replace("%2F", "/")
    outermost: Any = Outermost(inside)  # type: ignore[arg-type]
    asyncio.run(outermost({"type": "http", "path": decoded, "raw_path": written}, None, None))
    assert found == [seen]
