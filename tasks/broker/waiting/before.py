"""The tasks that end before a result can come: earlier links of a chain, members of a chord's header."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


def leaves(result: Any) -> list[Any]:
    """The results of single tasks that a result, a group or a group of groups is made of."""
    parts = getattr(result, "results", None)
    return [result] if parts is None else [leaf for part in parts for leaf in leaves(part)]


def pending_before(result: Any) -> list[Any]:
    """The tasks that have to end next for this one to be sent, a whole header's where it is a chord's; none if all have ended."""
    found: list[Any] = []
    before = result.parent
    while before is not None:
        pending = [leaf for leaf in leaves(before) if not leaf.ready()]
        found, before = pending or found, getattr(before, "parent", None)
    return found


def lost_of(pending: Iterable[Any]) -> str | None:
    """The id of one of these tasks that Redis has lost, so that nothing follows it; of another class's results nobody can say."""
    return next((task.id for task in pending if hasattr(task, "is_lost") and task.is_lost()), None)
