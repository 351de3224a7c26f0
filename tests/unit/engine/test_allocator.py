"""Blocks of the C library that an engine frees go back to the system."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes
from tasks.engine.allocator import bound_heap, trim_heap
library = ctypes.CDLL(None)
library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
class Kept(ctypes.Structure):
    _fields_ = [(f"field_{{number}}", ctypes.c_size_t) for number in range(3)] + [("hblks", ctypes.c_size_t)]
    _fields_ += [(f"field_{{number}}", ctypes.c_size_t) for number in range(4, 10)]
library.mallinfo2.restype = Kept
{begin}
library.free(library.malloc(16 << 20))
before = library.mallinfo2().hblks
blocks = [library.malloc(1 << 20) for _ in range(8)]
print(library.mallinfo2().hblks - before)
trim_heap()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
@pytest.mark.parametrize(("begin", "mapped"), [("", "0"), ("bound_heap()", "8")])
def test_large_blocks_stay_mappings(begin: str, mapped: str) -> None:
    """Without it, a large block that was freed has all smaller ones lie in one heap, where they leave holes."""
    program = PROGRAM.format(begin=begin)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == mapped
