#!/usr/bin/env bash
# mlx 0.32.4 on the CPU (Linux, Python 3.11), numpy 2.4.6: the mean of ordinary float16 numbers is infinite.
#
# Guess: mx.mean computes float16 with a float32 running sum, as numpy's mean does, and as mx.fast.rms_norm does: the mean of 4,096
# times 100 is 100.
# Seen: the sum is rounded to float16 before it is divided, and is inf above 65,504. A mean over many positions (pooling hidden states
# into an embedding, an average loss) becomes inf from some length on, and only for long inputs:
#     numpy, 4,096 times 100:       100.0
#     mx.mean, 512 times 100:       100.0
#     mx.mean, 4,096 times 100:     inf
#     mx.mean of the same as float32: 100.0
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "mlx[cpu]==0.32.4" numpy==2.4.6
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
import mlx.core as mx
import numpy as np

long = mx.full((4096,), 100.0, mx.float16)
print("numpy, 4,096 times 100:      ", np.mean(np.array(long)))
print("mx.mean, 512 times 100:      ", mx.mean(long[:512]).item())
print("mx.mean, 4,096 times 100:    ", mx.mean(long).item())
print("mx.mean of the same as float32:", mx.mean(long.astype(mx.float32)).item())
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
numpy, 4,096 times 100:       100.0
mx.mean, 512 times 100:       100.0
mx.mean, 4,096 times 100:     inf
mx.mean of the same as float32: 100.0
SEEN
