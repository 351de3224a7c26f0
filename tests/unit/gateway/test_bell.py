"""The bell that wakes an answer."""

from __future__ import annotations

import asyncio

from tasks.gateway.bell import Bell


def test_who_waits_is_woken_or_told_that_nothing_came() -> None:
    """A ring wakes the waiter, one before the wait counts until it was looked at, and a wait has an end."""

    async def main() -> list[bool]:
        bell = Bell()
        asyncio.get_running_loop().call_soon(bell.ring)
        found = [await bell.wait()]
        found.append(await bell.wait(0.001))
        bell.clear()
        found.append(await bell.wait(0.001))
        return found

    assert asyncio.run(main()) == [True, True, False]
