"""Chooses the rows that are computed together: those nearest in length, so that little is padded. No MLX here."""

from __future__ import annotations

from bisect import bisect_right
from heapq import merge
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tasks.engine.embedding.texts import Texts

#: The number of rows that use a device fully, however short they are.
MOST_ROWS = 512


def take_batch(requests: Sequence[Texts], most_tokens: int, threads: int = 1) -> list[tuple[Texts, int]]:
    """Take the rows of one step out of their requests' pending ones: request and place of each, the longest first.

    The first request's longest row leads, so that every request that comes to stand first gets on. The others are the longest of
    all requests that are no longer than it. ``most_tokens`` bounds their tokens with padding, except for a row alone. Where
    there are rows for all ``threads``, each gets as many as the others.
    """
    lead = requests[0]
    longest = lead.length(lead.pending[-1])
    most_rows = max(1, min(most_tokens // max(longest, 1), MOST_ROWS))
    if most_rows > threads:
        most_rows -= most_rows % threads
    # Of equal lengths those of the first request come first.
    rows = merge(*(_upto(request, longest) for request in requests), key=lambda row: -row[0].length(row[1]))
    batch = list(islice(rows, most_rows))
    for request, place in batch:
        request.pending.remove(place)
    return batch


def _upto(request: Texts, length: int) -> Iterator[tuple[Texts, int]]:
    """A request's pending rows of at most this length, the longest first."""
    end = bisect_right(request.pending, length, key=request.length)
    return ((request, request.pending[n]) for n in range(end - 1, -1, -1))
