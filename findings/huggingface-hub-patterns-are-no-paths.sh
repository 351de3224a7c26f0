#!/usr/bin/env bash
# huggingface_hub 2.4.0 (Python 3.11): a pattern for files of a model also takes those of its folders, and one for all folders skips the top.
#
# Guess: allow_patterns and ignore_patterns of snapshot_download are read as a shell or .gitignore reads them: "*.safetensors" is the
# files at the top, "**/*.safetensors" those in any folder and at the top, and "onnx" leaves out the folder onnx.
# Seen: a "*" also stands for slashes, so the first fetches every conversion that lies in a folder of its own, the second misses the
# model itself, and the third leaves out nothing, without a warning. Only a slash behind it makes a folder of a name:
#     allow  *.safetensors     model.safetensors onnx/model.safetensors
#     allow  **/*.safetensors  onnx/model.safetensors
#     allow  ./*.json          nothing
#     ignore onnx              config.json model.safetensors onnx/model.safetensors
#     ignore onnx/             config.json model.safetensors
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q huggingface_hub==2.4.0
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
from huggingface_hub.utils import filter_repo_objects  # what snapshot_download asks

files = ["config.json", "model.safetensors", "onnx/model.safetensors"]
for kind, pattern in (
    ("allow", "*.safetensors"), ("allow", "**/*.safetensors"), ("allow", "./*.json"), ("ignore", "onnx"), ("ignore", "onnx/"),
):
    kept = filter_repo_objects(files, **{f"{kind}_patterns": pattern})
    print(f"{kind:6} {pattern:17}", " ".join(kept) or "nothing")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
allow  *.safetensors     model.safetensors onnx/model.safetensors
allow  **/*.safetensors  onnx/model.safetensors
allow  ./*.json          nothing
ignore onnx              config.json model.safetensors onnx/model.safetensors
ignore onnx/             config.json model.safetensors
SEEN
