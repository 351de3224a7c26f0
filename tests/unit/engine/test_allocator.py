"""Blocks of the C library that a load frees go back to the system."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes
from tasks.engine.allocator import trim_heap
library = ctypes.CDLL(None)
library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])
library.free(library.malloc(16 << 20))  # from now on blocks of a mebibyte lie in the heap
blocks = [library.malloc(1 << 20) for _ in range(16)]
for block in blocks:
    ctypes.memset(block, 1, 1 << 20)
last = library.malloc(1 << 20)
full = resident()
for block in blocks:
    library.free(block)
trim_heap()
print((full - resident()) * 4 >> 10)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_freed_blocks_below_a_used_one_go_back() -> None:
    """The heap ends with a block in use, so nothing but this gives back what lies before it."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) >= 12
