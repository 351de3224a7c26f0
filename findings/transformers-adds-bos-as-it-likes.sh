#!/usr/bin/env bash
# transformers 5.23.0, tokenizers 0.23.3 (Linux, Python 3.11): "add_bos_token" in tokenizer_config.json neither adds the token nor leaves it out.
#
# Guess: add_bos_token, true or false, decides whether a text begins with the token that begins a text. Many models have the field in that file, and it is
# the one to change where that token is there twice, or not at all.
# Seen: where there is a tokenizer.json, its post-processor decides alone, for LlamaTokenizer, GemmaTokenizer and PreTrainedTokenizerFast. The field has
# no effect, nothing warns, and the attribute of that name on the tokenizer is false while the token is added:
#     post-processor without the token: true [2], false [2], left out [2], attribute False
#     post-processor with the token:    true [0, 2], false [0, 2], left out [0, 2], attribute False
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.23.0 tokenizers==0.23.3
"$folder/venv/bin/python" - "$folder" >"$folder/seen" 2>/dev/null <<'PYTHON'
import json, pathlib, sys

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer

folder = pathlib.Path(sys.argv[1])
made = Tokenizer(models.BPE({"<s>": 0, "</s>": 1, **{letter: n for n, letter in enumerate("abc", 2)}}, []))
made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
made.add_special_tokens(["<s>", "</s>"])
for label in ("post-processor without the token:", "post-processor with the token:"):
    made.save(str(folder / "tokenizer.json"))
    seen = {}
    for model_type, name in (("llama", "LlamaTokenizer"), ("llama", "PreTrainedTokenizerFast"), ("gemma", "GemmaTokenizer")):
        (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
        for said, field in (("true", {"add_bos_token": True}), ("false", {"add_bos_token": False}), ("left out", {})):
            config = {"tokenizer_class": name, "bos_token": "<s>", "eos_token": "</s>", **field}
            (folder / "tokenizer_config.json").write_text(json.dumps(config))
            tokenizer = AutoTokenizer.from_pretrained(folder)
            seen.setdefault(f"{said} {tokenizer('a').input_ids}", set()).add(tokenizer.add_bos_token)
    print(f"{label:33} {', '.join(seen)}, attribute", *set.union(*seen.values()))
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
post-processor without the token: true [2], false [2], left out [2], attribute False
post-processor with the token:    true [0, 2], false [0, 2], left out [0, 2], attribute False
SEEN
