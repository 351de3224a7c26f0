#!/usr/bin/env bash
# mlx-lm 0.32.2 (Linux, Python 3.11): the longest examples of a data set are never trained on, and never evaluated.
#
# Guess: where the number of examples is no multiple of the batch size, a smaller batch is made of the rest, or a few examples, others in each
# epoch, are left out of it.
# Seen: examples are sorted by length, cut into whole batches from the shortest on, and the batches are shuffled. The rest is the same at each epoch,
# and it is the longest ones: those whose loss is least like the others'. The validation set and `--test` lose theirs in the same way. With
# the default of 4, a set of 7 conversations trains on the 4 shortest:
#     10 examples of 1 to 10 tokens, batches of 4: never drawn: 9 10
#     10 examples of 1 to 10 tokens, batches of 3: never drawn: 10
#     7 examples of 1 to 7 tokens, batches of 4: never drawn: 5 6 7
# Nothing says so. Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q mlx-lm==0.32.2 "mlx[cpu]==0.32.4"
"$folder/venv/bin/python" >"$folder/seen" 2>/dev/null <<'PYTHON'
from mlx_lm.tuner.trainer import iterate_batches

for examples, batch_size in ((10, 4), (10, 3), (7, 4)):
    dataset = [([1] * length, 0) for length in range(1, examples + 1)]
    drawn = set()
    batches = iterate_batches(dataset, batch_size, max_seq_length=2048, loop=True)
    for _ in range(50 * (examples // batch_size)):  # fifty epochs
        _, bounds = next(batches)
        drawn.update(length for _, length in bounds.tolist())
    left_out = sorted(set(range(1, examples + 1)) - drawn)
    print(f"{examples} examples of 1 to {examples} tokens, batches of {batch_size}: never drawn:", *left_out)
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
10 examples of 1 to 10 tokens, batches of 4: never drawn: 9 10
10 examples of 1 to 10 tokens, batches of 3: never drawn: 10
7 examples of 1 to 7 tokens, batches of 4: never drawn: 5 6 7
SEEN
