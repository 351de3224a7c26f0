#!/usr/bin/env bash
# mlx-lm 0.32.2, transformers 5.23.0 (Linux, Python 3.11): the rotary base of a model that transformers 5 has saved is not read.
#
# Guess: a config.json that transformers writes says the same to mlx-lm as before, whichever version of transformers it was;
# mlx-lm installs transformers 5 itself.
# Seen: transformers 5 writes rope_theta and rope_scaling into rope_parameters. mlx-lm's code for qwen3 looks there. Its code for
# llama (and mistral), qwen2, gemma2, phi3 and some fifty others does not, and takes its own default without a word: a Llama 3 is
# computed with 10,000 instead of 500,000, and without its scaling. Where there is no default (qwen3_moe) the load fails.
#     llama 10000 None
#     qwen2 1000000 None
#     qwen3 500000.0 llama3
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q mlx-lm==0.32.2 "mlx[cpu]==0.32.4" transformers==5.23.0
"$folder/venv/bin/python" >"$folder/seen" 2>/dev/null <<'PYTHON'
import importlib, json

from transformers import AutoConfig

scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
for name in ("llama", "qwen2", "qwen3"):
    kept = {"original_max_position_embeddings": 8192, **scaling}
    saved = json.loads(AutoConfig.for_model(name, rope_theta=500000.0, rope_scaling=kept).to_json_string())
    read = importlib.import_module(f"mlx_lm.models.{name}").ModelArgs.from_dict(saved)
    print(name, read.rope_theta, read.rope_scaling and read.rope_scaling["rope_type"])
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
llama 10000 None
qwen2 1000000 None
qwen3 500000.0 llama3
SEEN
