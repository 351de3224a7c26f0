"""Lets clients in: by an API key, or from this machine without one."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.gateway.connection.refusal import Refusal
from tasks.gateway.records.access_key import LOCAL, AccessKey

if TYPE_CHECKING:
    from starlette.requests import Request

    from tasks.gateway.records.store import Store

#: The longest that a revoked key is still let in, and a client without a key once the first key was made.
REMEMBERED_S = 2.0
_MOST_REMEMBERED = 10_000


def is_loopback(address: str) -> bool:
    """Return whether a listener at this address is reached from this machine alone."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


@dataclass(slots=True, frozen=True, kw_only=True)
class AccessRules:
    """The rules by which clients are let in.

    ``is_local``: the gateway listens on loopback alone, and clients on this machine need no key while none was made.
    ``needs_no_key``: clients need no key even if keys exist. ``origins`` are other sites whose pages may ask.
    """

    is_local: bool
    needs_no_key: bool
    origins: tuple[str, ...] = ()


class Access:
    """Lets requests in.

    Args:
        store: has the keys.
        rules: the rules by which clients are let in.
    """

    def __init__(self, store: Store, rules: AccessRules) -> None:
        self._store = store
        self._rules = rules
        self._known: dict[str, tuple[float, AccessKey | None]] = {}
        self._has_keys = (0.0, True)

    async def key_of(self, request: Request) -> AccessKey:
        """The key of a request.

        Raises:
            Refusal: it has none, and needs one; or nobody knows it.
            BrokerUnavailable: Redis cannot be reached.
        """
        secret = _secret_of(request)
        known = await self._find(secret) if secret else None
        if known is not None:
            return known
        if await self._takes_anybody():
            if self._rules.is_local:
                _require_own_page(request, self._rules.origins)
            return LOCAL
        if secret:
            raise Refusal(401, "unknown API key: was it revoked?", "invalid_api_key")
        raise Refusal(401, "no API key: send one as Authorization: Bearer KEY", "invalid_api_key")

    async def _takes_anybody(self) -> bool:
        if self._rules.needs_no_key or not self._rules.is_local:
            return self._rules.needs_no_key
        until, has_keys = self._has_keys
        if time.monotonic() >= until:
            has_keys = await asyncio.to_thread(self._store.has_keys)
            self._has_keys = time.monotonic() + REMEMBERED_S, has_keys
        return not has_keys

    async def _find(self, secret: str) -> AccessKey | None:
        now = time.monotonic()
        until, key = self._known.get(secret, (0.0, None))
        if now >= until:
            key = await asyncio.to_thread(self._store.key, secret)
            if len(self._known) >= _MOST_REMEMBERED:
                self._known.clear()
            self._known[secret] = now + REMEMBERED_S, key
        return key


def _secret_of(request: Request) -> str:
    kind, _, secret = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and secret.strip():
        return secret.strip()
    return request.headers.get("x-api-key", "") or request.headers.get("api-key", "")


def _require_own_page(request: Request, origins: tuple[str, ...]) -> None:
    """A page of somebody else's, in a browser on this machine, must not use the gateway: its requests come from loopback too.

    Raises:
        Refusal: the request was made by such a page, directly or under a name of its own that leads here.
    """
    host = request.url.hostname or ""
    if not is_loopback(host):
        raise Refusal(403, f"Host: {host:.80}: without an API key use localhost or 127.0.0.1", "wrong_host")
    origin = request.headers.get("origin")
    if origin is not None and origin not in (f"{request.url.scheme}://{request.url.netloc}", *origins):
        raise Refusal(403, f"Origin: {origin:.80}: pages of other sites need --allow-origin", "wrong_origin")
