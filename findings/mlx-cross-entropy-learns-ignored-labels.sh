#!/usr/bin/env bash
# mlx 0.32.4 on the CPU (Linux, Python 3.11): labels of -100, which are to be ignored, train the model on a token.
#
# Guess: mlx.nn.losses.cross_entropy leaves out labels of -100, as PyTorch's does by default and as every collator of transformers writes
# them for padding and prompts; or, having no such rule, it raises an error for a negative class.
# Seen: -100 is an index from the end. Of a vocabulary of 32,000 tokens it is token 31,900: each padded position has a loss, and a gradient
# that makes this token likelier. Losses fall and look plausible:
#     loss of (5, -100), of (5, 31900), of 5 alone: 15.37 15.37 10.37
#     gradient at token 31900: -0.5
# mx.where(labels == -100, 0, ...) as a weight avoids it. Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "mlx[cpu]==0.32.4"
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
import mlx.core as mx
from mlx import nn

VOCABULARY = 32_000
logits = mx.zeros((2, VOCABULARY)).at[1, VOCABULARY - 100].add(-10.0)


def loss(logits, labels):
    return nn.losses.cross_entropy(logits, mx.array(labels), reduction="mean")


losses = [loss(logits, [5, -100]), loss(logits, [5, VOCABULARY - 100]), loss(logits[:1], [5])]
print("loss of (5, -100), of (5, 31900), of 5 alone:", *(f"{each.item():.2f}" for each in losses))
gradient = mx.grad(loss)(logits, [5, -100])
print(f"gradient at token 31900: {gradient[1, VOCABULARY - 100].item():.1f}")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
loss of (5, -100), of (5, 31900), of 5 alone: 15.37 15.37 10.37
gradient at token 31900: -0.5
SEEN
