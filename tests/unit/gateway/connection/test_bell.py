"""The bell that wakes an answer."""

from __future__ import annotations

import asyncio

from tasks.gateway.connection.bell import Bell


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


def test_each_wait_has_its_own_end() -> None:
    """One timer serves all waits: a later end does not come early, and an earlier one does not come late."""

    async def main() -> list[bool]:
        loop, bell = asyncio.get_running_loop(), Bell()
        found = []
        for patience_s in (0.01, 3_600.0, 0.01):
            loop.call_later(0.005, bell.ring)
            found.append(await bell.wait(patience_s))
            bell.clear()
        loop.call_later(0.03, bell.ring)  # behind the end that the first wait had
        found += [await bell.wait(3_600.0)]
        bell.clear()
        return [*found, await bell.wait(0.01)]

    assert asyncio.run(asyncio.wait_for(main(), 60)) == [True, True, True, True, False]
