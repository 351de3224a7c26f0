"""The differences between the tasks of this project on a worker: the engine's message, and the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from tasks.client.request.form import Common

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.client.answers.answer import Answer
    from tasks.client.request.form import Form
    from tasks.journal.claim_answer import ClaimAnswer
    from tasks.journal.items import Held
    from tasks.messages import engine as messages
    from tasks.messages.journal import End
    from tasks.messages.load import Ready
    from tasks.worker.attempts.attempt import Attempt
    from worker_config.catalogue import ModelEntry

Given = TypeVar("Given", bound=Common)
Tried = TypeVar("Tried", bound="Attempt")


class Work(Protocol[Given, Tried]):
    """One task's part in a request."""

    @property
    def form(self) -> Form[Given]:
        """The form of the task's requests."""

    def attempt(self, task_id: str, claim: ClaimAnswer, model: str, held: Callable[[], Held | None] = ...) -> Tried:
        """An attempt at it."""

    def message(self, attempt: Tried, given: Given, entry: ModelEntry, ready: Ready | None) -> messages.Work:
        """Return the order to the engine."""

    def answer(self, attempt: Tried, given: Given, end: End, worker: str) -> Answer:
        """The result that is stored."""


#: Where it does not matter which.
AnyWork = Work[Any, Any]
