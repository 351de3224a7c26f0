"""Many calls of another thread's cost an event loop one wake-up, and one that fails keeps no other from being made."""

from __future__ import annotations

import asyncio
from typing import Any

from tasks.client.reader.mailbox import Mailbox


def test_many_posts_are_one_wake_up() -> None:
    """What is posted before the loop comes round is called in order, after one wake-up, whatever one call raises."""
    mailbox, heard, problems, wake_ups = Mailbox(), list[int](), list[Any](), list[Any]()

    def hear(number: int) -> None:
        if number == 1:
            raise ValueError(number)
        heard.append(number)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, about: problems.append(about["exception"]))

        class Counting:
            """The loop, as far as a mailbox uses it."""

            def call_soon_threadsafe(self, call: Any) -> None:
                """Count, and do it."""
                wake_ups.append(call)
                loop.call_soon_threadsafe(call)

        for number in range(4):
            mailbox.post(Counting(), hear, number)  # type: ignore[arg-type]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        mailbox.post(Counting(), hear, 4)  # type: ignore[arg-type]
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(main())
    assert heard == [0, 2, 3, 4]
    assert [type(problem) for problem in problems] == [ValueError]
    assert len(wake_ups) == 2
