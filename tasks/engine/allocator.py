"""How the C library keeps freed memory, for a process whose arrays are large.

glibc raises the size from which a block is a mapping of its own to that of the largest block that was freed, up to 32 MiB.
From then on weights and what a step computes lie in one heap, and in one more for each thread; a freed block leaves a hole
that is never given back. An engine of the bundled model held 330 MiB more than MLX had arrays. With a fixed size, it holds
120 MiB more.
"""

from __future__ import annotations

import ctypes

#: Blocks of so many bytes are mappings, which end when they are freed. MLX itself keeps blocks that a step frees for the next.
MAPPED_BYTES = 256 << 10
#: Of mallopt(3).
_MMAP_THRESHOLD, _ARENA_MAX = -3, -8


def bound_heap() -> None:
    """To be called before other threads start; does nothing where the C library is another."""
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(_MMAP_THRESHOLD, MAPPED_BYTES)
        library.mallopt(_ARENA_MAX, 1)


def trim_heap() -> None:
    """Give back what loading has freed."""
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)
