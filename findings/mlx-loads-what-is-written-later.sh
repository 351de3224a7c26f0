#!/usr/bin/env bash
# mlx 0.32.4 on the CPU, safetensors 0.8.0, numpy 2.4.6 (Linux, Python 3.11): mx.load gives the numbers that are written to the file afterwards.
#
# Guess: what mx.load returns is what the file held when it was called, as numpy's load and safetensors' load_file give it. An array is computed late, and
# always from the same inputs.
# Seen: reading is late too. The names, types and places are taken at once, and the numbers when they are first needed, from whatever is at these places then.
# To keep the best checkpoint and compare it with the next one, which is saved under the same name, compares the next one with itself, without an error. A
# file of the same arrays always fits. Only an array that was computed, and a file that was replaced by a rename, keep the old numbers:
#                                 mx.load  safetensors
#     saved again                 2.0      1.0
#     saved again, after mx.eval  1.0      1.0
#     replaced by os.replace      1.0      1.0
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "mlx[cpu]==0.32.4" safetensors==0.8.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
import os

import mlx.core as mx
from safetensors.numpy import load_file


def save(value, file="best.safetensors"):
    mx.save_safetensors(file, {"weight": mx.full((8,), value)})


def replace(value):
    save(value, "next.safetensors")
    os.replace("next.safetensors", "best.safetensors")


print(f"{'':27} mx.load  safetensors")
for label, write, between in (
    ("saved again", save, lambda arrays: None),
    ("saved again, after mx.eval", save, mx.eval),
    ("replaced by os.replace", replace, lambda arrays: None),
):
    save(1.0)
    loaded, other = mx.load("best.safetensors"), load_file("best.safetensors")
    between(loaded)
    write(2.0)
    print(f"{label:27} {loaded['weight'][0].item()}      {other['weight'][0]}")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
                            mx.load  safetensors
saved again                 2.0      1.0
saved again, after mx.eval  1.0      1.0
replaced by os.replace      1.0      1.0
SEEN
