"""The counters of one gateway, as Prometheus reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.gateway.endpoints.pieces import Piece
from tasks.metrics.exposition import Exposition, Metric, labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.gateway.endpoints.pieces import Finish

METRICS = (
    Metric("gateway_requests_total", "counter", "endpoint, status", "HTTP requests that were answered."),
    Metric("gateway_refusals_total", "counter", "status", "Requests for an answer that ended with an error."),
    Metric("gateway_open_answers", "gauge", "", "Answers that are being given now."),
    Metric("gateway_pieces_total", "counter", "", "Pieces of text that were passed on."),
    Metric("gateway_resent_total", "counter", "", "Requests that a client's SDK sent once more."),
)


class _Open:
    """A count of open ``with`` blocks."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> None:
        self.count += 1

    def __exit__(self, *_: object) -> None:
        self.count -= 1


class Metrics:
    """One gateway's counters. Used on the event loop's thread."""

    def __init__(self) -> None:
        self._answered: dict[tuple[str, int], int] = {}
        self._refused: dict[int, int] = {}
        self._pieces = self._resent = 0
        #: Entered while an answer is being given.
        self.open_answer = _Open()

    def answer(self, endpoint: str, status: int) -> None:
        """Count a request that was answered, or whose stream has begun."""
        self._answered[endpoint, status] = self._answered.get((endpoint, status), 0) + 1

    def refuse(self, status: int) -> None:
        """Count a request for an answer that ended with an error."""
        self._refused[status] = self._refused.get(status, 0) + 1

    def resend(self) -> None:
        """Count a request that was sent once more."""
        self._resent += 1

    def count(self, parts: Sequence[Piece | Finish]) -> None:
        """Count pieces that are passed on."""
        self._pieces += sum(isinstance(part, Piece) for part in parts)

    def encode(self) -> bytes:
        """All of it."""
        found = Exposition(METRICS)
        for (endpoint, status), count in self._answered.items():
            found.add("gateway_requests_total", count, labels(endpoint=endpoint, status=status))
        for status, count in self._refused.items():
            found.add("gateway_refusals_total", count, labels(status=status))
        found.add("gateway_open_answers", self.open_answer.count)
        found.add("gateway_pieces_total", self._pieces)
        found.add("gateway_resent_total", self._resent)
        return found.encode()
