#!/usr/bin/env bash
# mlx-lm 0.32.2 (Linux, Python 3.11): each example of a fine-tuning also teaches the token with the id 0.
#
# Guess: the loss leaves out padding: of an example of three tokens it has two, the second and the third.
# Seen: the mask ends one position too late. Behind the last token of each example (that is not cut at the greatest length) the model is
# trained to say token 0, with which batches are padded ("!" in the vocabularies of Qwen and Llama 3), and the loss that is reported has that
# one in its mean. With --mask-prompt and answers of four tokens it is a fifth of what is learned:
#     example 5 6 7, padded to 33 tokens
#     trained to say 6 behind 5
#     trained to say 7 behind 6
#     trained to say 0 behind 7
#     tokens that are counted: 3
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q mlx-lm==0.32.2 "mlx[cpu]==0.32.4"
"$folder/venv/bin/python" >"$folder/seen" 2>/dev/null <<'PYTHON'
import mlx.core as mx
from mlx_lm.tuner.trainer import default_loss, iterate_batches

batch, bounds = next(iterate_batches([([5, 6, 7], 0)], batch_size=1, max_seq_length=2048))
print("example 5 6 7, padded to", batch.shape[1], "tokens")


def loss(logits):
    return default_loss(lambda _: logits, batch, bounds)


logits = mx.zeros((1, batch.shape[1] - 1, 10))
gradient = mx.grad(lambda logits: loss(logits)[0])(logits)
for place in range(logits.shape[1]):
    if gradient[0, place].min().item() < 0:  # what is to be made likelier
        print("trained to say", mx.argmin(gradient[0, place]).item(), "behind", batch[0, place].item())
print("tokens that are counted:", loss(logits)[1].item())
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
example 5 6 7, padded to 33 tokens
trained to say 6 behind 5
trained to say 7 behind 6
trained to say 0 behind 7
tokens that are counted: 3
SEEN
