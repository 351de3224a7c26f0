"""Refusals of requests, in OpenAI's shape and with the status that its SDKs expect."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from tasks.errors import Cancelled, GenerationError, QueueFull

if TYPE_CHECKING:
    from collections.abc import Mapping

#: OpenAI's ``type`` by status; all others are the server's fault.
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    409: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    499: "cancelled",
}
#: Seconds until the next try where nothing says how long it takes.
RETRY_S = 2.0
_FIELD = re.compile(r"[A-Za-z_]\w*")
_BEHIND_FIELD = ("=", ":", "[", ".", " names ", " is missing")


class Refusal(Exception):
    """Ends a request with an error.

    Args:
        status: HTTP's.
        message: for people: the field, its value and the remedy.
        code: for programs.
        param: the field that is wrong, if one is.
        retry_after_s: when to try again; ``None`` where that may not help.
        should_retry: whether OpenAI's SDKs, which retry requests that fail with 408, 409, 429 or 5xx, shall do so.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
        should_retry: bool | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers["retry-after"] = str(max(1, math.ceil(retry_after_s)))
        if should_retry is not None:
            self.headers["x-should-retry"] = "true" if should_retry else "false"

    @property
    def body(self) -> dict[str, Any]:
        """The answer's body, and the data of an event in a stream that has begun."""
        kind = _TYPES.get(self.status, "server_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


def refusal_of(error: GenerationError) -> Refusal:
    """Return the refusal that a client gets for an error of ``generate``."""
    status, code = error.http_status, error.code
    if isinstance(error, QueueFull):
        return Refusal(status, str(error), code, retry_after_s=error.retry_after_s or RETRY_S)
    if isinstance(error, Cancelled) or status < 500:
        return Refusal(status, str(error), code, param=_field_of(str(error)) if status == 400 else None)
    return Refusal(
        status,
        str(error),
        code,
        retry_after_s=RETRY_S if status == 503 else None,
        should_retry=error.retryable,
    )


def _field_of(message: str) -> str | None:
    """The field that a message of :class:`tasks.errors.InvalidRequest` begins with."""
    found = _FIELD.match(message)
    return found.group() if found and message.startswith(_BEHIND_FIELD, found.end()) else None
