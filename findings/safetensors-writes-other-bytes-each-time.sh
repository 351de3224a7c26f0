#!/usr/bin/env bash
# safetensors 0.8.0, numpy 2.4.6 (Linux, Python 3.11): saving the same tensors and the same metadata gives other bytes each time.
#
# Guess: a file is a function of its content. Tensors are sorted by type and name, and a header of JSON has the metadata in the order in
# which they are given, or sorted: two saves give one SHA-256.
# Seen: the metadata come in a random order, another one at each save within one process. With tensors only, or with one item of
# metadata, the bytes are equal, so a test with {"format": "pt"} does not find it. Digests of files (content-addressed stores,
# checks that a copy is complete, reproducible builds) differ for equal content:
#     20 saves, no metadata:       1 digest
#     20 saves, 1 item:            1 digest
#     20 saves, 8 items:           more than 1 digest
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpy==2.4.6 safetensors==0.8.0
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
import hashlib

import numpy as np
from safetensors.numpy import save

tensors = {"a": np.zeros(3, np.float32), "b": np.ones(2, np.float16)}


def digests(metadata):
    number = len({hashlib.sha256(save(tensors, metadata)).digest() for _ in range(20)})
    return "1 digest" if number == 1 else "more than 1 digest"


print("20 saves, no metadata:      ", digests(None))
print("20 saves, 1 item:           ", digests({"format": "pt"}))
print("20 saves, 8 items:          ", digests({f"key{n}": "value" for n in range(8)}))
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
20 saves, no metadata:       1 digest
20 saves, 1 item:            1 digest
20 saves, 8 items:           more than 1 digest
SEEN
