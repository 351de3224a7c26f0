"""A digest of a request: it tells a request that is sent again from another one under the same id.

``celery-mlx:request:<id>`` keeps them from the first ``delay`` or claim on. The same parameters under the same id are the same
request, which is computed once; others are refused.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from tasks.errors import InvalidRequest
from tasks.messages.encoding import to_canonical_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker_config.settings import Settings

#: Longer than results are kept, by the time that a request may wait and run.
MARGIN_S = 86_400


def fingerprint(previous: Any, values: Mapping[str, Any]) -> str:
    """The digits of a request with this previous answer and these parameters; a parameter that is ``None`` is left out."""
    given = {name: value for name, value in values.items() if value is not None}
    text = to_canonical_json([_said(previous), given])
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _said(previous: Any) -> Any:
    """An answer's text: its times and its worker are others where it is delivered again."""
    if isinstance(previous, list | tuple):
        return [_said(answer) for answer in previous]
    return previous.get("text") if isinstance(previous, dict) else previous


def kept_s(settings: Settings) -> int:
    """Return for how long the digits are kept."""
    return settings.result_ttl_s + MARGIN_S


def other_request(task_id: str) -> InvalidRequest:
    """The error of a request whose id is another's."""
    return InvalidRequest(
        f"task_id={task_id!r}: a request with other parameters was sent with this id before; choose another id, or leave it out"
    )
