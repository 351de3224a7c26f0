#!/usr/bin/env bash
# mlx 0.32.4 on the CPU (Linux, Python 3.11): random integers of a wide range are nearly all even.
#
# Guess: mx.random.randint(0, 2**30) draws every integer of the range with the same probability, as numpy and torch do: half of the
# numbers are odd, and one in 64 (2 %) is a multiple of 64.
# Seen: the integers are a float32 from [0, 1) times the range, so they have the 24 significant bits of a float32. From 2**24 on the low
# bits stay zero more and more often; no error and no warning says so. Seeds, identifiers and shards (`number % shards`) that are
# drawn this way collide:
#     below 2**20: 50 % odd,  1 % multiples of 64
#     below 2**30:  1 % odd, 67 % multiples of 64
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "mlx[cpu]==0.32.4" numpy==2.4.6
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
import mlx.core as mx
import numpy as np

mx.random.seed(3)
for power in (20, 30):
    drawn = np.array(mx.random.randint(0, 2**power, (20000,)))
    odd, multiples = (drawn % 2).mean(), (drawn % 64 == 0).mean()
    print(f"below 2**{power}: {100 * odd:2.0f} % odd, {100 * multiples:2.0f} % multiples of 64")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
below 2**20: 50 % odd,  1 % multiples of 64
below 2**30:  1 % odd, 67 % multiples of 64
SEEN
