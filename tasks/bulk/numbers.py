"""The finished lines of a job, at one bit for each line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Numbers:
    """A set of line numbers. A million of them take 125 kB, where a set of Python's takes 60 MB."""

    def __init__(self) -> None:
        self._bits = bytearray()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, number: int) -> bool:
        place, bit = divmod(number, 8)
        return place < len(self._bits) and bool(self._bits[place] >> bit & 1)

    def __iter__(self) -> Iterator[int]:
        """From the least to the greatest."""
        return (8 * place + bit for place, byte in enumerate(self._bits) if byte for bit in range(8) if byte >> bit & 1)

    def add(self, number: int) -> None:
        """Add a line; one that is there already changes nothing."""
        place, bit = divmod(number, 8)
        if place >= len(self._bits):
            self._bits.extend(bytes(place + 1 - len(self._bits)))
        self._count += not self._bits[place] >> bit & 1
        self._bits[place] |= 1 << bit
