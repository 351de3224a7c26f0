#!/usr/bin/env bash
# mlx 0.32.4 on the CPU (Linux, Python 3.11): under vmap, all rows get the same random numbers.
#
# Guess: mx.vmap of a function that draws (noise, dropout, a sampler) draws for each row, or is refused: PyTorch's vmap raises an error
# unless it is told which is meant, and JAX asks for a key for each row.
# Seen: the function is traced once, and so is its draw: one number is added to each row, one mask of dropout drops the same places of
# each example, and sampled tokens agree. There is no error, and each row by itself has the right distribution:
#     normal  rows of one batch that differ: 1 of 8
#     dropout rows of one batch that differ: 1 of 8
#     drawn   rows of one batch that differ: 1 of 8
#     one by one, without vmap:              8 of 8
# With vmap over keys (mx.random.split(key, 8)) they differ. Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "mlx[cpu]==0.32.4"
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
import mlx.core as mx
from mlx import nn

mx.random.seed(5)
dropout = nn.Dropout(0.5)
dropout.train()
functions = {
    "normal": lambda row: row + mx.random.normal(row.shape),
    "dropout": dropout,
    "drawn": lambda row: row + mx.random.randint(0, 1000, (3,)),
}
rows = mx.ones((8, 64))


def distinct(results):
    return len({str(row.tolist()) for row in results})


for name, function in functions.items():
    if name == "drawn":
        rows = mx.ones((8, 3))
    print(f"{name:7} rows of one batch that differ: {distinct(mx.vmap(function)(rows))} of 8")
print(f"one by one, without vmap:              {distinct([functions['drawn'](row) for row in rows])} of 8")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
normal  rows of one batch that differ: 1 of 8
dropout rows of one batch that differ: 1 of 8
drawn   rows of one batch that differ: 1 of 8
one by one, without vmap:              8 of 8
SEEN
