"""Reads from which place a client continues a stream."""

from __future__ import annotations

from tasks.gateway.connection.refusal import Refusal


def places_of(event_id: str) -> tuple[str, list[int]]:
    """The answer that an event belongs to, and how much of each choice had been sent with it.

    Raises:
        Refusal: it is the id of no event of ours.
    """
    request_id, separator, places = event_id.rpartition(":")
    parts = places.split(".")
    if not separator or not all(part.isascii() and part.isdigit() and len(part) < 12 for part in parts):
        raise Refusal(400, f"Last-Event-ID: {event_id:.80}: is not an id of an event of this gateway", "wrong_event")
    return request_id, [int(part) for part in parts]
