#!/usr/bin/env bash
# mlx 0.32.4 on the CPU, gguf 0.19.0 (Linux, Python 3.11): a GGUF file in Q4_K, the kind that most people download, loads with half of its weights wrong.
#
# Guess: mx.load reads the kinds of a GGUF file that it has code for, and raises an error for others, as it does for Q3_K and Q5_K.
# Seen: Q4_K is read. A block has 256 weights in eight groups, each with a scale and a minimum of its own; groups 1, 3, 5 and 7 get those of the
# group before them. Shapes, types and magnitudes are right, so only a comparison of values, or the text that a model writes, shows it. Q6_K,
# which the same files use for some layers, is right:
#     Q4_K  largest error in groups 0 to 7: 0.0 9.2 0.0 9.4 0.0 8.7 0.0 9.2
#     Q6_K  largest error: 0.0
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "mlx[cpu]==0.32.4" gguf==0.19.0 numpy==2.4.6
"$folder/venv/bin/python" - "$folder/file.gguf" >"$folder/seen" <<'PYTHON'
import sys

import mlx.core as mx
import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import dequantize

BLOCKS = 64
draw = np.random.default_rng(1)


def blocks(size, scales):
    """Blocks of this many bytes, all random but for their scales, which are numbers of 16 bits at these places."""
    raw = draw.integers(0, 256, (BLOCKS, size), dtype=np.uint8)
    for place, scale in scales.items():
        raw[:, place : place + 2] = np.full(BLOCKS, scale, np.float16).view(np.uint8).reshape(BLOCKS, 2)
    return raw


kinds = {
    "Q4_K": (GGMLQuantizationType.Q4_K, blocks(144, {0: 0.01, 2: 0.01})),
    "Q6_K": (GGMLQuantizationType.Q6_K, blocks(210, {208: 0.01})),
}
writer = GGUFWriter(sys.argv[1], "llama")
for name, (kind, raw) in kinds.items():
    writer.add_tensor(f"{name}.weight", raw, raw_dtype=kind)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

read = mx.load(sys.argv[1])
errors = {}
for name, (kind, raw) in kinds.items():
    meant = dequantize(raw, kind)
    seen = np.array(read[f"{name}.weight"].astype(mx.float32)).reshape(meant.shape)
    errors[name] = abs(seen - meant)
print("Q4_K  largest error in groups 0 to 7:", *(f"{each:.1f}" for each in errors["Q4_K"].reshape(BLOCKS, 8, 32).max(axis=(0, 2))))
print(f"Q6_K  largest error: {errors['Q6_K'].max():.1f}")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
Q4_K  largest error in groups 0 to 7: 0.0 9.2 0.0 9.4 0.0 8.7 0.0 9.2
Q6_K  largest error: 0.0
SEEN
