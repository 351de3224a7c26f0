"""The requests of the batch, and which of those that wait may join them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.engine.generation.sequence import Request
    from tasks.messages.engine import Isolation


class Running(dict[int, "Request"]):
    """The requests of the batch, by their numbers."""

    @property
    def batch_work(self) -> list[Request]:
        """Those that urgent requests go before."""
        return [request for request in self.values() if request.submit.gives_way]

    def goes_before(self, request: Request) -> bool:
        """Whether a request is urgent, beside batch work that runs."""
        return not request.submit.gives_way and any(other.submit.gives_way for other in self.values())

    @property
    def awaits_first(self) -> bool:
        """Whether an interactive request has no token yet."""
        return any(not (request.submit.gives_way or request.ids) for request in self.values())

    def has_place(self, request: Request, limit: int, urgent_rows: int) -> bool:
        """Whether the batch takes one more: of urgent ones some beyond its limit, each beside one of batch work."""
        if len(self) < limit:
            return True
        return self.goes_before(request) and len(self) < limit + min(urgent_rows, len(self.batch_work))

    def allows(self, isolate: Isolation) -> bool:
        """Whether isolation allows a request beside those that run."""
        first = next(iter(self.values()), None)
        return first is None or (isolate == first.submit.isolate and isolate != "alone")

    def lengths(self, *more: Request) -> list[int]:
        """The tokens of all, and of these, at their longest."""
        return [request.most_tokens for request in (*self.values(), *more)]
