#!/usr/bin/env bash
# mlx-lm 0.32.2, transformers 5.23.0 (Linux, Python 3.11): whether a model thinks unasked depends on its vocabulary, and not on its template.
#
# Guess: apply_chat_template of the tokenizer that mlx_lm.load returns renders a conversation as transformers does. A template whose
# model thinks only on demand (EXAONE 4: "enable_thinking is defined and enable_thinking") leaves the thought out, and one whose model
# thinks unless told not to opens it.
# Seen: mlx-lm passes enable_thinking to every template: True where the vocabulary has <think> and </think>, and False elsewhere. So
# the first model thinks unasked, and the second one, if its markers are ordinary text, does not:
#     on demand, markers are tokens: transformers 'no', mlx-lm 'thinks'
#     unless told not to, markers are text: transformers 'thinks', mlx-lm 'no'
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q mlx-lm==0.32.2 "mlx[cpu]==0.32.4" transformers==5.23.0
"$folder/venv/bin/python" - "$folder" >"$folder/seen" 2>/dev/null <<'PYTHON'
import json, sys
from pathlib import Path

from mlx_lm.tokenizer_utils import load
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer

CASES = {
    "on demand, markers are tokens": (
        ["<think>", "</think>"], "{% if enable_thinking is defined and enable_thinking %}thinks{% else %}no{% endif %}"
    ),
    "unless told not to, markers are text": (
        [], "{% if enable_thinking is defined and not enable_thinking %}no{% else %}thinks{% endif %}"
    ),
}
for name, (added, template) in CASES.items():
    folder = Path(sys.argv[1]) / name.replace(" ", "-")
    folder.mkdir()
    alphabet = {token: number for number, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.add_tokens(added)
    made.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    described = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(described))
    asked = [{"role": "user", "content": "1+1?"}]
    theirs, wrapped = AutoTokenizer.from_pretrained(folder), load(folder)
    said = [tokenizer.apply_chat_template(asked, tokenize=False) for tokenizer in (theirs, wrapped)]
    print(f"{name}: transformers {said[0]!r}, mlx-lm {said[1]!r}")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
on demand, markers are tokens: transformers 'no', mlx-lm 'thinks'
unless told not to, markers are text: transformers 'thinks', mlx-lm 'no'
SEEN
