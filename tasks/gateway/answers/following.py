"""Reading the choices of one answer side by side, in batches: under load one write to the client has many of their pieces."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Self

from tasks.client.reader.callback_reader import CallbackReader
from tasks.errors import GenerationError
from tasks.gateway.endpoints.pieces import Choice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.client.reader.chunks import Chunk
    from tasks.client.reader.mailbox import Mailbox
    from tasks.client.result import GenerateResult
    from tasks.gateway.connection.bell import Bell
    from tasks.gateway.endpoints.pieces import Finish, Piece


class Following:
    """Reads the journals of some requests until all have ended; a context manager, which leaves them running.

    Args:
        results: one for each choice.
        stirred: is rung whenever there is news; others may ring it too.
        mailbox: brings the news to the event loop.
        after: how much of each the client has.
    """

    def __init__(
        self, results: Sequence[GenerateResult], stirred: Bell, mailbox: Mailbox, after: Sequence[int] = ()
    ) -> None:
        self.choices = [Choice(number, after[number] if number < len(after) else 0) for number in range(len(results))]
        self._results = results
        self._news: list[Piece | Finish] = []
        self._unfinished = len(results)
        self._error: GenerationError | None = None
        self._stirred = stirred
        self._mailbox = mailbox
        self._readers: list[CallbackReader] = []

    def __enter__(self) -> Self:
        self._readers = [
            CallbackReader(result, partial(self._take, choice), partial(self._fail, choice), self._mailbox)
            for result, choice in zip(self._results, self.choices, strict=True)
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for reader in self._readers:
            reader.close()

    @property
    def is_over(self) -> bool:
        """Whether every choice has ended, and all of it was taken."""
        return not self._unfinished and not self._news and self._error is None

    @property
    def is_running(self) -> bool:
        """Whether workers may still be at it."""
        return any(choice.finish is None and not choice.has_failed for choice in self.choices)

    def take(self) -> list[Piece | Finish]:
        """Return all news so far. Chunks before an error come first; the bell rings on for the error.

        Raises:
            GenerationError: a choice has failed.
        """
        taken, self._news = self._news, []
        if not taken and self._error is not None:
            raise self._error
        if self._error is None:
            self._stirred.clear()
        return taken

    def _take(self, choice: Choice, chunks: list[Chunk]) -> None:
        for chunk in chunks:
            self._news += choice.take(chunk)
        if choice.finish is not None:  # nothing follows
            self._unfinished -= 1
        if self._news:
            self._stirred.ring()

    def _fail(self, choice: Choice, error: Exception) -> None:
        choice.has_failed = True
        known = isinstance(error, GenerationError)
        failed = error if known else GenerationError(f"{type(error).__name__}: {error}")
        self._error = self._error or failed  # type: ignore[assignment]
        self._stirred.ring()
