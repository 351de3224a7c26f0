"""Maps ids to lines, in a few bytes for each line."""

from __future__ import annotations

import hashlib
from array import array

_LEAST_PLACES = 1024
_NUMBER_BITS = 32


class Ids:
    """Finds the line that had an id before.

    A hash table of 16 bytes for each place: 96 bits of a digest of the id, and 32 of the line's number. It is a third to two
    thirds full, so a line takes 24 to 48 bytes. A dictionary takes 170.
    """

    def __init__(self) -> None:
        self._heads = array("Q", bytes(8 * _LEAST_PLACES))
        self._tails = array("Q", bytes(8 * _LEAST_PLACES))
        self._count = 0

    def first(self, line_id: str, number: int) -> int:
        """The line that had this id first: this one, which is noted then, or an earlier one.

        Args:
            line_id: the id.
            number: counts lines from 1.
        """
        digest = hashlib.blake2b(line_id.encode(errors="surrogatepass"), digest_size=12).digest()
        head, tail = int.from_bytes(digest[:8]), int.from_bytes(digest[8:])
        place = self._place(head, tail)
        if self._tails[place]:
            return self._tails[place] & (1 << _NUMBER_BITS) - 1
        self._heads[place], self._tails[place] = head, tail << _NUMBER_BITS | number
        self._count += 1
        if 3 * self._count > 2 * len(self._heads):
            self._grow()
        return number

    def _place(self, head: int, tail: int) -> int:
        """Return the place of this digest, present or not: a place without a number is empty."""
        heads, tails = self._heads, self._tails
        last = len(heads) - 1
        place = head & last
        while tails[place] and (heads[place] != head or tails[place] >> _NUMBER_BITS != tail):
            place = (place + 1) & last
        return place

    def _grow(self) -> None:
        heads, tails = self._heads, self._tails
        self._heads, self._tails = array("Q", bytes(16 * len(heads))), array("Q", bytes(16 * len(tails)))
        for head, tail in zip(heads, tails, strict=True):
            if tail:
                place = self._place(head, tail >> _NUMBER_BITS)
                self._heads[place], self._tails[place] = head, tail
