"""The open requests as rows of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.cli.overview.table import Column
from tasks.cli.overview.words import NOTHING, clean, rate
from tasks.fleet.words import age

if TYPE_CHECKING:
    from tasks.broker.inventory.inventory import OpenRequest

REQUEST_COLUMNS = (
    Column("request", 0, least=13),
    Column("state", 1),
    Column("where", 3, least=12),
    Column("model", 4, least=12),
    Column("for", 2, justify="right"),
    Column("tokens", 5, justify="right"),
    Column("tok/s", 6, justify="right"),
)
#: The text for a request that names no model, which its worker chooses then.
DEFAULT = "(default)"
STATES = {"held": "loading", "ended": "ending"}


def request_row(request: OpenRequest) -> tuple[str, ...]:
    """The cells of one request, in the order of :data:`REQUEST_COLUMNS`."""
    per_s = request.tokens / request.age_s if request.tokens and request.age_s else None
    return (
        clean(request.task_id),
        STATES.get(request.place, request.place),
        clean(request.worker or request.queue),
        clean(request.model or DEFAULT),
        NOTHING if request.age_s is None else age(request.age_s),
        str(request.tokens or NOTHING),
        rate(per_s),
    )
