#!/usr/bin/env bash
# mlx-lm 0.32.2 (Python 3.11): a tool's argument that is "a string or null" arrives as a number, and Optional[int] as a string.
#
# Guess: the parser for Qwen3-Coder's calls, which gets the tools' schemas, leaves a text a text for {"type": "string"} and for
# {"type": ["string", "null"]}, and reads a number for {"type": "integer"} and for the anyOf that pydantic writes for Optional[int].
# Seen: it understands the single name of a type only. A list of types is evaluated as a Python literal: a version "1.10" becomes 1.1, and
# "1,5" becomes a tuple. Where there is no "type" beside an anyOf, each value is a string:
#     string          ['1.10', '1e3', '1,5', 'True']
#     string or null  [1.1, 1000.0, (1, 5), True]
#     integer         [5]
#     Optional[int]   ['5']
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-deps mlx-lm==0.32.2 regex
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
import sysconfig
from importlib.util import module_from_spec, spec_from_file_location

# The parser is loaded by itself, since the package imports mlx and transformers.
spec = spec_from_file_location("parser", sysconfig.get_path("purelib") + "/mlx_lm/tool_parsers/qwen3_coder.py")
parser = module_from_spec(spec)
spec.loader.exec_module(parser)

TEXTS = ("1.10", "1e3", "1,5", "True")
for label, schema, texts in (
    ("string", {"type": "string"}, TEXTS),
    ("string or null", {"type": ["string", "null"]}, TEXTS),
    ("integer", {"type": "integer"}, ("5",)),
    ("Optional[int]", {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None}, ("5",)),
):
    parameters = {"type": "object", "properties": {"value": schema}}
    tools = [{"type": "function", "function": {"name": "find", "parameters": parameters}}]
    calls = [f"<function=find>\n<parameter=value>\n{text}\n</parameter>\n</function>" for text in texts]
    print(f"{label:15}", [parser.parse_tool_call(call, tools)["arguments"]["value"] for call in calls])
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
string          ['1.10', '1e3', '1,5', 'True']
string or null  [1.1, 1000.0, (1, 5), True]
integer         [5]
Optional[int]   ['5']
SEEN
