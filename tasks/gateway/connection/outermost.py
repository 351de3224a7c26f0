"""The outermost application, which gives streams."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.types import Receive, Scope, Send

#: The key under which a response of Starlette's leaves the function that sends its stream.
STREAM = "celery_mlx.stream"


class Outermost:
    """Gives a stream when the application inside has returned.

    A stream may be open for minutes. The frames of routes and middlewares, the request that was parsed and its body are not
    kept for as long: they are a third of what an open stream takes.

    Args:
        inside: answers, or leaves a stream.
    """

    def __init__(self, inside: Starlette) -> None:
        self._inside = inside

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Clients that put their base address together carelessly double slashes, or end with one.

        A slash that is written as %2F belongs to a name: a model may be a folder.
        """
        written = scope.get("raw_path", b"").decode("ascii", "replace")
        if "//" in written or written.endswith("/"):
            scope["path"] = unquote("/" + "/".join(filter(None, written.split("/"))))
        await self._inside(scope, receive, send)
        stream = scope.pop(STREAM, None)
        if stream is not None:
            await stream(send)
