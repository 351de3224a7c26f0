#!/usr/bin/env bash
# mlx-lm 0.32.2 (Linux, Python 3.11): a llama that was trained with relu is computed with silu.
#
# Guess: hidden_act in config.json chooses the activation function of a llama's perceptrons, as in transformers, or a value that
# mlx-lm cannot compute is an error.
# Seen: mlx-lm's llama has silu in its code and no such field. relu (ReluLLaMA), gelu and a word that is no function load without an
# error, and give the very logits of silu:
#     relu: loaded, the same logits as silu: True
#     gelu: loaded, the same logits as silu: True
#     nonsense: loaded, the same logits as silu: True
# The same holds for qwen2, mixtral, phi3 and others. Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q mlx-lm==0.32.2 "mlx[cpu]==0.32.4"
"$folder/venv/bin/python" - "$folder" >"$folder/seen" 2>/dev/null <<'PYTHON'
import json, sys
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models import llama
from mlx_lm.utils import load_model

config = {
    "model_type": "llama", "hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 32, "num_attention_heads": 2,
    "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "vocab_size": 40, "rope_theta": 10000.0, "tie_word_embeddings": False,
}
folder = Path(sys.argv[1])
made = llama.Model(llama.ModelArgs.from_dict(config))
mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(made.parameters())))
logits = {}
for name in ("silu", "relu", "gelu", "nonsense"):
    (folder / "config.json").write_text(json.dumps({**config, "hidden_act": name}))
    model, _ = load_model(folder, strict=True)
    logits[name] = model(mx.array([[1, 2, 3]]))
    if name != "silu":
        print(f"{name}: loaded, the same logits as silu: {mx.array_equal(logits[name], logits['silu']).item()}")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
relu: loaded, the same logits as silu: True
gelu: loaded, the same logits as silu: True
nonsense: loaded, the same logits as silu: True
SEEN
