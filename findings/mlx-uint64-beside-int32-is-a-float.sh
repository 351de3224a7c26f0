#!/usr/bin/env bash
# mlx 0.32.4 on the CPU (Linux, Python 3.11): two integers that differ are equal, if one of them is a uint64.
#
# Guess: integers with integers give integers, or, for uint64 beside a signed type, float64 as numpy does, which is exact up to 2**53;
# a comparison compares the integers.
# Seen: uint64 beside int32 or int64 gives float32, for sums and for comparisons too, and float32 has 24 bits. mx.array([10]) is an int32, and the
# steps of optimizers, hashes and identifiers are uint64: seconds, counters and shards are wrong from 16,777,216 on, without an error:
#     uint64 and int64 give      float32
#     uint64 and int32 give      float32
#     uint64 and a plain 1 give  uint64
#     16777216 == 16777217       True
#     1732792000 - 1732791990    128
#     (2**30 + 1) % 2            0
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "mlx[cpu]==0.32.4"
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
import mlx.core as mx


def unsigned(number):
    return mx.array([number], mx.uint64)


def name(array):
    return str(array.dtype).removeprefix("mlx.core.")


print(f"{'uint64 and int64 give':26}", name(unsigned(1) + mx.array([1], mx.int64)))
print(f"{'uint64 and int32 give':26}", name(unsigned(1) + mx.array([1])))
print(f"{'uint64 and a plain 1 give':26}", name(unsigned(1) + 1))
print(f"{'16777216 == 16777217':26}", (unsigned(16777216) == mx.array([16777217])).item())
print(f"{'1732792000 - 1732791990':26}", int((unsigned(1732792000) - mx.array([1732791990])).item()))
print(f"{'(2**30 + 1) % 2':26}", int((unsigned(2**30 + 1) % mx.array([2])).item()))
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
uint64 and int64 give      float32
uint64 and int32 give      float32
uint64 and a plain 1 give  uint64
16777216 == 16777217       True
1732792000 - 1732791990    128
(2**30 + 1) % 2            0
SEEN
