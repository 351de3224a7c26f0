"""The limits of an API key, for its client: OpenAI's headers, and the reason of a refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.gateway.connection.refusal import Refusal

if TYPE_CHECKING:
    from tasks.gateway.records.access_key import AccessKey
    from tasks.gateway.records.store import Allowance


def headers_of(allowance: Allowance, key: AccessKey) -> dict[str, str]:
    """OpenAI's headers about the limits that a key has."""
    found = {}
    for name, limit, left, whole_in_s in (
        ("requests", key.requests_a_minute, allowance.requests, allowance.requests_whole_in_s),
        ("tokens", key.tokens_a_minute, allowance.tokens, allowance.tokens_whole_in_s),
    ):
        if limit:
            found[f"x-ratelimit-limit-{name}"] = str(limit)
            found[f"x-ratelimit-remaining-{name}"] = str(left)
            found[f"x-ratelimit-reset-{name}"] = f"{whole_in_s:.3f}s"
    return found


def refuse_exceeded(allowance: Allowance, key: AccessKey) -> None:
    """Refuse a request that exceeds a limit.

    Raises:
        Refusal: it does; it says when there is room again.
    """
    limits = {
        "requests": f"{key.requests_a_minute} requests a minute",
        "tokens": f"{key.tokens_a_minute} tokens a minute",
        "concurrency": f"{key.at_once} requests at once",
    }
    if not allowance.exceeded:
        return
    raise Refusal(
        429,
        f"this API key may send {limits[allowance.exceeded]}: try again in {allowance.wait_s:.1f} s",
        "rate_limit_exceeded",
        retry_after_s=allowance.wait_s,
        headers=headers_of(allowance, key),
    )
