"""Sending for asyncio: the event loop goes on, and whoever leaves takes what was sent along."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
from contextlib import suppress
from contextvars import ContextVar

import pytest

from tasks.client.sending.sender import Sender
from tasks.errors import QueueFull
from tests.support import wait_until


class Line:
    """A way to Redis that is held until it is let go."""

    def __init__(self) -> None:
        self.begun, self.free = threading.Event(), threading.Event()
        self.sent: list[str] = []

    def send(self, name: str) -> str:
        self.begun.set()
        assert self.free.wait(60)
        self.sent.append(name)
        return name


def test_the_loop_goes_on_while_a_request_is_sent() -> None:
    """What the loop does meanwhile is what lets the request go."""
    line = Line()

    async def main() -> str:
        sent = asyncio.create_task(Sender(print).send(lambda: line.send("one")))
        while not line.begun.is_set():
            await asyncio.sleep(0)
        line.free.set()
        return await sent

    assert asyncio.run(main()) == "one"


def test_an_error_is_raised_and_context_variables_are_there() -> None:
    """As if it had been called on the loop's own thread."""
    name = ContextVar("name", default="")

    def refuse() -> None:
        raise QueueFull(name.get())

    async def main() -> None:
        name.set("tracer")
        await Sender(print).send(refuse)

    with pytest.raises(QueueFull, match="tracer"):
        asyncio.run(main())


def test_what_a_cancelled_caller_has_sent_is_taken_back() -> None:
    """The one that was on its way is; the one that no thread had begun with is never sent."""
    line = Line()
    taken: list[str] = []
    sender = Sender(taken.append, threads=1)

    async def main() -> None:
        first = asyncio.create_task(sender.send(lambda: line.send("first")))
        while not line.begun.is_set():
            await asyncio.sleep(0)
        second = asyncio.create_task(sender.send(lambda: line.send("second")))
        await asyncio.sleep(0)
        for task in (first, second):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        line.free.set()

    asyncio.run(main())
    wait_until(lambda: taken == ["first"])
    assert line.sent == ["first"]


def test_after_a_fork() -> None:
    """A child sends on threads of its own; those of its parent are not there."""
    sender = Sender(print)

    async def main() -> str:
        return await asyncio.wait_for(sender.send(lambda: "sent"), 60)

    assert asyncio.run(main()) == "sent"
    context = multiprocessing.get_context("fork")
    answers: multiprocessing.SimpleQueue[str] = context.SimpleQueue()
    child = context.Process(target=lambda: answers.put(asyncio.run(main())))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert answers.get() == "sent"
