#!/usr/bin/env bash
# mlx 0.32.4 on the CPU (Linux, Python 3.11): the argument `freqs` of mx.fast.rope is one over the frequencies.
#
# Guess: `freqs` are the frequencies by which a position is multiplied, 1 / base ** (2 i / d): the reference code of Llama calls them freqs, and
# transformers inv_freq. mx.fast.rope(base=None, freqs=...) with those gives what base=10000 gives.
# Seen: they are divided by, so the argument is the wavelengths, base ** (2 i / d). Frequencies of a scaled model (YaRN, Llama 3, a file's
# rope_freqs) that are handed over as they are give an array of the right shape, type and norm; the documentation calls them
# "optional frequencies". Only the first pair of each head, whose frequency is 1, comes out as it should:
#     freqs = 1 / 10000 ** (2 i / 64): 31 of 32 pairs differ from base=10000
#     freqs = 10000 ** (2 i / 64):     0 of 32 pairs differ from base=10000
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "mlx[cpu]==0.32.4"
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
import mlx.core as mx

DIMENSIONS, BASE = 64, 10000.0
x = mx.random.normal((1, 1, 128, DIMENSIONS), key=mx.random.key(0))
exact = mx.fast.rope(x, DIMENSIONS, traditional=False, base=BASE, scale=1.0, offset=0)
wavelengths = BASE ** (mx.arange(0, DIMENSIONS, 2) / DIMENSIONS)
for name, freqs in (("1 / 10000 ** (2 i / 64)", 1 / wavelengths), ("10000 ** (2 i / 64)", wavelengths)):
    y = mx.fast.rope(x, DIMENSIONS, traditional=False, base=None, scale=1.0, offset=0, freqs=freqs)
    assert abs(mx.linalg.norm(y).item() - mx.linalg.norm(x).item()) < 0.01
    differ = mx.abs(y - exact).max(axis=(0, 1, 2))[: DIMENSIONS // 2] > 0.01  # one of each pair
    print(f"{'freqs = ' + name + ':':32} {differ.sum().item()} of {differ.size} pairs differ from base=10000")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
freqs = 1 / 10000 ** (2 i / 64): 31 of 32 pairs differ from base=10000
freqs = 10000 ** (2 i / 64):     0 of 32 pairs differ from base=10000
SEEN
