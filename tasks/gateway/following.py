"""Reading the choices of one answer side by side, in batches: under load one write to the client has many of their pieces."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Self

from tasks.errors import GenerationError
from tasks.gateway.pieces import Choice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.client.result import GenerateResult
    from tasks.gateway.pieces import Finish, Piece


class Following:
    """Reads the journals of some requests until all have ended; an asynchronous context manager, which leaves them running.

    Args:
        results: one for each choice.
        stirred: is set whenever there is news; others may set it too.
        after: how much of each the client has.
    """

    def __init__(self, results: Sequence[GenerateResult], stirred: asyncio.Event, after: Sequence[int] = ()) -> None:
        self.choices = [Choice(number, after[number] if number < len(after) else 0) for number in range(len(results))]
        self._results = results
        self._news: deque[Piece | Finish | GenerationError] = deque()
        self._stirred = stirred
        self._readers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._readers = [
            asyncio.create_task(self._read(result, choice))
            for result, choice in zip(self._results, self.choices, strict=True)
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)

    @property
    def is_over(self) -> bool:
        """Whether every choice has ended, and all of it was taken."""
        return not self._news and all(choice.finish is not None for choice in self.choices)

    @property
    def is_running(self) -> bool:
        """Whether workers may still be at it."""
        return any(choice.finish is None and not choice.has_failed for choice in self.choices)

    def take(self) -> list[Piece | Finish]:
        """All news so far.

        Raises:
            GenerationError: a choice has failed.
        """
        self._stirred.clear()
        taken: list[Piece | Finish] = []
        while self._news:
            if isinstance(self._news[0], GenerationError):
                if taken:  # the text that came before it first
                    self._stirred.set()
                    return taken
                raise self._news[0]
            taken.append(self._news.popleft())  # type: ignore[arg-type]
        return taken

    async def _read(self, result: GenerateResult, choice: Choice) -> None:
        try:
            async for chunk in result.astream():
                self._put(choice.take(chunk))
        except GenerationError as error:
            choice.has_failed = True
            self._put([error])
        except Exception as error:  # noqa: BLE001 -- whatever Celery has stored of a task that failed
            choice.has_failed = True
            self._put([GenerationError(f"{type(error).__name__}: {error}")])

    def _put(self, news: Sequence[Piece | Finish | GenerationError]) -> None:
        self._news.extend(news)
        if news:
            self._stirred.set()
