"""The listener that the engines of a worker report to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tasks.messages.engine import StepOutput


class Listener(Protocol):
    """Hears of the engines, on threads of theirs: no call may wait."""

    def stepped(self, output: StepOutput) -> None:
        """An engine made a step."""

    def engines_changed(self) -> None:
        """An engine came, went or failed, or a load began or ended."""

    def code_replaced(self, why: str) -> None:
        """The code on this machine is not this worker's any more, or not whole: it can start no engine. Called once."""

    def aside_lists_changed(self) -> None:
        """Requests are taken from other aside lists from now on."""
