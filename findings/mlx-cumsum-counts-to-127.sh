#!/usr/bin/env bash
# mlx 0.32.4 on the CPU, numpy 2.4.6 (Linux, Python 3.11): a running sum of a mask starts again at 128 or 256.
#
# Guess: mx.cumsum gives the type that mx.sum gives, so that its last number is the sum. Both count a bool mask in int32; numpy's
# two widen every short integer.
# Seen: mx.sum widens int8, uint8 and int16, and mx.cumsum does so for bool alone. Positions of tokens that are counted along a mask of 0 and 1
# in uint8 or int8 are right for each short text, and negative or small again in a longer one, without an error:
#     300 ones  bool   sum 300  cumsum 300  numpy's 300
#     300 ones  uint8  sum 300  cumsum 44   numpy's 300
#     300 ones  int8   sum 300  cumsum 44   numpy's 300
#     the 128th of them in int8: -128
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "mlx[cpu]==0.32.4" numpy==2.4.6
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
import mlx.core as mx
import numpy as np

for name, dtype in (("bool", mx.bool_), ("uint8", mx.uint8), ("int8", mx.int8)):
    ones = mx.ones(300, dtype=dtype)
    last = mx.cumsum(ones)[-1].item()
    print(f"300 ones  {name:5}  sum {mx.sum(ones).item()}  cumsum {last:<3}  numpy's {np.cumsum(np.array(ones))[-1]}")
print("the 128th of them in int8:", mx.cumsum(mx.ones(300, dtype=mx.int8))[127].item())
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
300 ones  bool   sum 300  cumsum 300  numpy's 300
300 ones  uint8  sum 300  cumsum 44   numpy's 300
300 ones  int8   sum 300  cumsum 44   numpy's 300
the 128th of them in int8: -128
SEEN
