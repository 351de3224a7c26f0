#!/usr/bin/env bash
# mlx 0.32.4 on the CPU, gguf 0.19.0 (Linux, Python 3.11): a bfloat16 weight of a GGUF file comes out infinite, or zero.
#
# Guess: a tensor that a GGUF file holds as BF16 is loaded as bfloat16, which mlx has, as mx.load does for the same tensor in safetensors; or as
# float32, which holds every bfloat16.
# Seen: it becomes float16. Numbers above 65,504 are infinite, those below 0.00000003 are zero, and small ones lose digits, without an error.
# BF16 is what a conversion keeps of a model that was published in bfloat16, so the file that is to lose nothing does. float32 stays as it is:
#     F32          float32   131072  0.01001  9.984e-07  1.001e-08
#     BF16         float16      inf  0.01001  1.013e-06          0
#     safetensors  bfloat16  131072  0.01001  9.984e-07  1.001e-08
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "mlx[cpu]==0.32.4" gguf==0.19.0
"$folder/venv/bin/python" - "$folder" >"$folder/seen" <<'PYTHON'
import sys

import gguf
import mlx.core as mx
import numpy as np

gguf_file, safetensors_file = f"{sys.argv[1]}/model.gguf", f"{sys.argv[1]}/model.safetensors"
weights = mx.array([2**17, 1e-2, 1e-6, 1e-8] * 8).astype(mx.bfloat16)
exact = np.array(weights.astype(mx.float32)).reshape(1, -1)
writer = gguf.GGUFWriter(gguf_file, "llama")
for kind in (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.BF16):
    written = gguf.quants.quantize(exact, kind)
    assert (gguf.quants.dequantize(written, kind) == exact).all()
    writer.add_tensor(kind.name, written, raw_dtype=kind)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
mx.save_safetensors(safetensors_file, {"safetensors": weights})
loaded = mx.load(gguf_file) | mx.load(safetensors_file)
for name in ("F32", "BF16", "safetensors"):
    big, *others = loaded[name].flatten()[:4].astype(mx.float32).tolist()
    dtype = str(loaded[name].dtype).removeprefix("mlx.core.")
    print(f"{name:12} {dtype:8} {big:7.0f}  {others[0]:.4g} {others[1]:10.4g} {others[2]:10.4g}")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
F32          float32   131072  0.01001  9.984e-07  1.001e-08
BF16         float16      inf  0.01001  1.013e-06          0
safetensors  bfloat16  131072  0.01001  9.984e-07  1.001e-08
SEEN
