#!/usr/bin/env bash
# mlx 0.32.4 on the CPU (Linux, Python 3.11): an activation, a dropout or an identity is false, and equal to every other one.
#
# Guess: a module is an object as any other: true, and equal to itself alone. `activation or nn.ReLU()` takes what it is given, and
# `if self.norm:` asks whether there is one, as in PyTorch.
# Seen: nn.Module is a dictionary of its arrays and modules. One that has none is an empty dictionary: false, and equal to each other empty
# one, so `in` and `==` find the wrong one. A model that is built with GELU computes ReLU, without an error, and a layer behind
# `if self.drop:` is never called:
#     nn.ReLU()       False  == nn.GELU(): True
#     nn.Identity()   False  == nn.GELU(): True
#     nn.Dropout(0.1) False  == nn.GELU(): True
#     nn.Linear(2, 2) True   == nn.GELU(): False
#     Block(activation=nn.GELU()).activation: ReLU
# `is None` avoids it. Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "mlx[cpu]==0.32.4"
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
from mlx import nn


class Block(nn.Module):
    def __init__(self, activation=None):
        super().__init__()
        self.activation = activation or nn.ReLU()


modules = {"nn.ReLU()": nn.ReLU(), "nn.Identity()": nn.Identity(), "nn.Dropout(0.1)": nn.Dropout(0.1), "nn.Linear(2, 2)": nn.Linear(2, 2)}
for name, module in modules.items():
    print(f"{name:15} {bool(module)!s:6} == nn.GELU(): {module == nn.GELU()}")
print("Block(activation=nn.GELU()).activation:", type(Block(activation=nn.GELU()).activation).__name__)
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
nn.ReLU()       False  == nn.GELU(): True
nn.Identity()   False  == nn.GELU(): True
nn.Dropout(0.1) False  == nn.GELU(): True
nn.Linear(2, 2) True   == nn.GELU(): False
Block(activation=nn.GELU()).activation: ReLU
SEEN
