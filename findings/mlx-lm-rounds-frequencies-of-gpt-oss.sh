#!/usr/bin/env bash
# mlx-lm 0.32.2 (Linux, Python 3.11): gpt-oss is computed with other rotary frequencies than its authors'.
#
# Guess: mlx-lm's code for gpt-oss turns the published rope_scaling into the frequencies of the model's reference code: it has one
# implementation of YaRN for a dozen families, and answers look right.
# Seen: it rounds the ends of YaRN's range to whole dimensions, as the first YaRN did. The file says "truncate": false, which transformers
# and the authors' code heed and mlx-lm does not read. Nine of the 32 frequencies of each head are off, one by 76 %:
#     off by more than 0.1 %: 9 of 32
#     the largest: 1.76 times the authors', in pair 17
#     without rounding they would be equal to 7 digits: True
# No error, and no warning of the field. Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q mlx-lm==0.32.2 "mlx[cpu]==0.32.4" transformers==5.23.0 numpy==2.4.6
"$folder/venv/bin/python" >"$folder/seen" 2>/dev/null <<'PYTHON'
import math

import numpy as np
from mlx_lm.models.rope_utils import initialize_rope

# As in config.json of gpt-oss-20b and gpt-oss-120b.
scaling = {
    "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
    "original_max_position_embeddings": 4096,
}
HEAD, BASE = 64, 150000


def authors(rounded):
    """The frequencies as in gpt_oss/torch/model.py, RotaryEmbedding; ``rounded`` is not there."""
    turns = BASE ** (np.arange(0, HEAD, 2) / HEAD)
    low = HEAD / 2 * math.log(4096 / (scaling["beta_fast"] * 2 * math.pi)) / math.log(BASE)
    high = HEAD / 2 * math.log(4096 / (scaling["beta_slow"] * 2 * math.pi)) / math.log(BASE)
    if rounded:
        low, high = math.floor(low), math.ceil(high)
    mask = 1 - np.clip((np.arange(HEAD / 2) - low) / (high - low), 0, 1)
    return 1 / (scaling["factor"] * turns) * (1 - mask) + 1 / turns * mask


computed = 1 / np.array(initialize_rope(HEAD, BASE, False, scaling)._freqs)
ratio = computed / authors(rounded=False)
print(f"off by more than 0.1 %: {(abs(ratio - 1) > 1e-3).sum()} of {HEAD // 2}")
print(f"the largest: {ratio.max():.2f} times the authors', in pair {ratio.argmax()}")
print("without rounding they would be equal to 7 digits:", np.allclose(computed, authors(rounded=True), rtol=3e-7))
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
off by more than 0.1 %: 9 of 32
the largest: 1.76 times the authors', in pair 17
without rounding they would be equal to 7 digits: True
SEEN
