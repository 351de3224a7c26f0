#!/usr/bin/env bash
# gguf 0.19.0 (Python 3.11): a list that is empty is not written, and a list of lists comes back as one list.
#
# Guess: GGUFWriter.add_array writes the list that it is given: the format has a count for each array, which may be 0, and arrays of arrays. A
# reader tells "no merges" from "nobody has said".
# Seen: an empty list is left out, and so is its key, without an error or a warning. Lists within a list are written, and GGUFReader gives their items in
# one row. A reader that requires the key refuses the file, or takes its default:
#     merges []            None
#     groups [[1], [2, 3]] [1, 2, 3]
#     names  ['']          ['']
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q gguf==0.19.0
"$folder/venv/bin/python" - "$folder/file.gguf" >"$folder/seen" <<'PYTHON'
import sys

import gguf

lists = {"merges": [], "groups": [[1], [2, 3]], "names": [""]}
writer = gguf.GGUFWriter(sys.argv[1], "llama")
for key, items in lists.items():
    writer.add_array(key, items)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
reader = gguf.GGUFReader(sys.argv[1])
for key, items in lists.items():
    field = reader.get_field(key)
    print(f"{key:6} {items!s:13} {field and field.contents()}")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
merges []            None
groups [[1], [2, 3]] [1, 2, 3]
names  ['']          ['']
SEEN
