"""How often a gateway asks Redis before a request is sent: each time is a part of the client's first chunk."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import TYPE_CHECKING, Any

import redis
from starlette.requests import Request

from tasks.gateway.access.access import Access, AccessRules
from tasks.gateway.answers.desk import Desk
from tasks.gateway.endpoints import chat
from tasks.gateway.records.access_key import AccessKey
from tasks.gateway.records.store import Store

if TYPE_CHECKING:
    import pytest

    from tasks.generate import GenerateTask


class Counting(redis.Redis):
    """Counts the commands that it sends."""

    asked = 0

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Count, and send."""
        self.asked += 1
        return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]


def test_one_before_a_request_is_sent(generate: GenerateTask, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its key's limits, its record and its usage are one script; the key itself was looked up for an earlier request."""
    from tasks import embed

    request = Request({"type": "http", "headers": [(b"authorization", b"Bearer secret")]})
    order = chat.parse({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}, "fake:1")
    monkeypatch.setattr("tasks.gateway.access.access.REMEMBERED_S", 3600.0)
    counts = []
    with closing(Counting(connection_pool=redis.ConnectionPool.from_url(redis_url))) as client:
        store = Store(client)
        store.add_key("secret", AccessKey(id="k", name="editor", requests_a_minute=9, tokens_a_minute=9_000, at_once=9))
        access = Access(store, AccessRules(is_local=False, needs_no_key=False))
        desk = Desk(generate, {"embedding": embed}, store)

        async def ask() -> None:
            await desk.take(order, await access.key_of(request), chat.PREFIX, None)

        async def main() -> None:
            for _ in range(3):
                before = client.asked
                await ask()
                counts.append(client.asked - before)

        asyncio.run(main())
    assert counts[1:] == [1, 1]
