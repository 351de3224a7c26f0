#!/usr/bin/env bash
# transformers 5.23.0 (Python 3.11): a model reads "<Decimal>" where a message has a price, and "<date>" where it has a date.
#
# Guess: a value in a message or in a template's argument that JSON does not have is written as str() writes it, or tojson raises a
# TypeError, as Jinja's and json.dumps do. Rows of a database go into tool results with Decimal, date and UUID in them.
# Seen: apply_chat_template rebuilds what the template sees of JSON's own types (it keeps templates from methods of objects), and puts the
# name of its type in the place of any other value. There is no error and no warning, and the prompt is well formed JSON:
#     {"price": "<Decimal>", "day": "<date>", "id": "<UUID>", "state": "<State>"}
#     as an argument: Today is <date>.
# json.dumps(..., default=str) before the call avoids it. Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.23.0 Jinja2==3.1.6
"$folder/venv/bin/python" >"$folder/seen" 2>/dev/null <<'PYTHON'
from datetime import date
from decimal import Decimal
from enum import Enum
from uuid import UUID

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

State = Enum("State", ["PAID"])
row = {"price": Decimal("19.99"), "day": date(2026, 11, 28), "id": UUID(int=1), "state": State.PAID}
tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
messages = [{"role": "tool", "content": row}]
print(tokenizer.apply_chat_template(messages, chat_template="{{ messages[0].content | tojson }}", tokenize=False))
template = "Today is {{ today }}."
print("as an argument:", tokenizer.apply_chat_template(messages, chat_template=template, today=row["day"], tokenize=False))
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
{"price": "<Decimal>", "day": "<date>", "id": "<UUID>", "state": "<State>"}
as an argument: Today is <date>.
SEEN
