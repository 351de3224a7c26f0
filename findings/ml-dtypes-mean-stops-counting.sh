#!/usr/bin/env bash
# ml_dtypes 0.6.0, numpy 2.4.6 (Linux, Python 3.11): numpy's mean of bfloat16 ones is a quarter.
#
# Guess: np.mean of a 16-bit array keeps its sum in float32, as numpy does for float16; ml_dtypes adds a type with fewer digits and changes
# no rule of numpy.
# Seen: numpy knows its own float16 only. The sum of bfloat16 numbers is a bfloat16 at each step, and not in pairs either, so it stands
# still at 256, where 256 + 1 rounds to 256. The mean of 1,000 ones is 256 / 1000. A matrix product of the same ones is right:
#     float16  mean 1.0
#     bfloat16 mean 0.25586 sum 256.0
#     bfloat16 product with ones 1000.0
#     bfloat16 mean with dtype=float32 1.0
# Nothing warns. Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpy==2.4.6 ml_dtypes==0.6.0
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
import ml_dtypes
import numpy as np

ones = np.ones(1000, ml_dtypes.bfloat16)
print("float16  mean", float(np.mean(ones.astype(np.float16))))
print("bfloat16 mean", round(float(np.mean(ones)), 5), "sum", float(np.sum(ones)))
print("bfloat16 product with ones", float((ones[None] @ ones[:, None])[0, 0]))
print("bfloat16 mean with dtype=float32", float(np.mean(ones, dtype=np.float32)))
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
float16  mean 1.0
bfloat16 mean 0.25586 sum 256.0
bfloat16 product with ones 1000.0
bfloat16 mean with dtype=float32 1.0
SEEN
