#!/usr/bin/env bash
# mlx-lm 0.32.2, tokenizers 0.23.3 (Linux, Python 3.11): the space between a prompt and its completion is missing.
#
# Guess: the text that stream_generate yields is what the tokenizer decodes of the same tokens; prompt + text is the whole text. Tokens of GPT-2's
# successors (Llama 3, Qwen) have their space in front, so a completion of "one" begins with " two".
# Seen: for byte-level vocabularies mlx-lm decodes by itself, and leaves out a space at the start of the text, as decoding a SentencePiece
# vocabulary does. A completion is joined to the last word of its prompt, indented code moves by one, and an answer that is one space is empty:
#     decode           ' two'  prompt + text: 'one two'
#     stream_generate  'two'   prompt + text: 'onetwo'
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q mlx-lm==0.32.2 "mlx[cpu]==0.32.4" transformers==5.23.0 tokenizers==0.23.3
"$folder/venv/bin/python" - "$folder" >"$folder/seen" 2>/dev/null <<'PYTHON'
import json, sys
from pathlib import Path

import mlx.core as mx
from mlx_lm import stream_generate
from mlx_lm.models import llama
from mlx_lm.tokenizer_utils import load
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

folder = Path(sys.argv[1])
tokens = ["</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
made = Tokenizer(models.BPE({token: n for n, token in enumerate(tokens)}, []))
made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
made.decoder = decoders.ByteLevel()
made.add_special_tokens(["</s>"])
made.save(str(folder / "tokenizer.json"))
(folder / "config.json").write_text("{}")
(folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}))
tokenizer = load(folder)
model = llama.Model(llama.ModelArgs(
    model_type="llama", hidden_size=32, num_hidden_layers=1, intermediate_size=32, num_attention_heads=2, rms_norm_eps=1e-5, vocab_size=len(tokens)
))
prompt, answer = "one", tokenizer.encode(" two", add_special_tokens=False)
forced = iter([*answer, *answer])
replies = stream_generate(model, tokenizer, prompt, max_tokens=len(answer), sampler=lambda _: mx.array([next(forced)]))
texts = {"decode": tokenizer.decode(answer), "stream_generate": "".join(reply.text for reply in replies)}
for label, text in texts.items():
    print(f"{label:16} {text!r:7} prompt + text: {prompt + text!r}")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
decode           ' two'  prompt + text: 'one two'
stream_generate  'two'   prompt + text: 'onetwo'
SEEN
