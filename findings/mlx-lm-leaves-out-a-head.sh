#!/usr/bin/env bash
# mlx-lm 0.32.2, transformers 5.23.0 (Linux, Python 3.11): the head of a Llama is left out, if config.json does not mention it.
#
# Guess: a field that config.json leaves out has the default of the model's own class in transformers, whose format it is:
# tie_word_embeddings is False for Llama. At the least, loading with strict=True names a tensor that is not used.
# Seen: mlx-lm's default for llama, qwen2, olmo2 and granite is True. Its code then drops lm_head.weight before the check for unused tensors, and the
# model's answers come from its embedding, transposed:
#     transformers' default False, mlx-lm's default True
#     loaded without an error; has a head: False
#     with "tie_word_embeddings": false in the file; has a head: True
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q mlx-lm==0.32.2 "mlx[cpu]==0.32.4" transformers==5.23.0
"$folder/venv/bin/python" - "$folder" >"$folder/seen" 2>/dev/null <<'PYTHON'
import json, sys
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models import llama
from mlx_lm.utils import load_model
from transformers import LlamaConfig

config = {
    "model_type": "llama", "hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 32, "num_attention_heads": 2,
    "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "vocab_size": 40, "rope_theta": 10000.0,
}
folder = Path(sys.argv[1])
whole = llama.Model(llama.ModelArgs.from_dict({**config, "tie_word_embeddings": False}))
mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(whole.parameters())))
default = llama.ModelArgs.from_dict(config).tie_word_embeddings
print(f"transformers' default {LlamaConfig().tie_word_embeddings}, mlx-lm's default {default}")
for said, label in (
    ({}, "loaded without an error"),
    ({"tie_word_embeddings": False}, 'with "tie_word_embeddings": false in the file'),
):
    (folder / "config.json").write_text(json.dumps({**config, **said}))
    model, _ = load_model(folder, strict=True)
    print(f"{label}; has a head: {'lm_head' in model}")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
transformers' default False, mlx-lm's default True
loaded without an error; has a head: False
with "tie_word_embeddings": false in the file; has a head: True
SEEN
