"""One batch: a file of requests that is answered into another one."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias, get_args

Status: TypeAlias = Literal[
    "validating", "in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled"
]
STATUSES = get_args(Status)
#: Nothing comes after these.
FINAL = frozenset({"completed", "failed", "expired", "cancelled"})
_TIMES = tuple(f"{status}_at" for status in STATUSES if status != "validating")


@dataclass(slots=True, kw_only=True)
class Batch:
    """One batch's record; ``at`` has the Unix time at which it came to each status, ``outcome`` what it
    comes to in the end, ``models`` the patterns of those that its owner may use.

    The gateway that drives it writes it, and nobody else.
    """

    id: str
    owner: str
    endpoint: str
    input_file_id: str
    completion_window: str
    created_at: int
    expires_at: int
    output_ttl_s: int
    models: list[str] = field(default_factory=list)
    metadata: dict[str, str] | None = None
    status: Status = "validating"
    outcome: Status = "completed"
    at: dict[str, int] = field(default_factory=dict)
    errors: list[dict[str, Any]] = field(default_factory=list)
    output_file_id: str | None = None
    error_file_id: str | None = None
    model: str | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes of it."""
        return self.status in FINAL

    def come_to(self, status: Status) -> None:
        """Change its status, if it is another one."""
        if self.status != status:
            self.status = status
            self.at[f"{status}_at"] = int(time.time())

    def values(self) -> dict[str, Any]:
        """The record for JSON."""
        return asdict(self)

    def shown(self, cancelling_at: int | None) -> dict[str, Any]:
        """OpenAI's batch object; somebody may have asked at that time that it be cancelled."""
        cancelling = cancelling_at is not None and not self.is_over
        status = "cancelling" if cancelling else self.status
        times = {name: self.at.get(name) for name in _TIMES}
        if cancelling_at is not None and self.status in ("validating", "in_progress", "finalizing", "cancelled"):
            times["cancelling_at"] = cancelling_at
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "model": self.model,
            "errors": {"object": "list", "data": self.errors} if self.errors else None,
            "input_file_id": self.input_file_id,
            "completion_window": self.completion_window,
            "status": status,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            **times,
            "request_counts": {"total": self.total, "completed": self.completed, "failed": self.failed},
            "usage": {
                "input_tokens": self.prompt_tokens,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": self.completion_tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": self.prompt_tokens + self.completion_tokens,
            },
            "metadata": self.metadata,
        }
