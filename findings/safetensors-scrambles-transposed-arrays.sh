#!/usr/bin/env bash
# safetensors 0.8.0 and 0.5.3, numpy 2.4.6 (Linux, Python 3.11): a transposed array is saved with its numbers in the wrong places.
#
# Guess: safetensors.numpy.save_file writes the array that numpy shows, whatever its layout in memory, or refuses a layout that it cannot
# write, as safetensors.torch does ("You are trying to save a non contiguous tensor"). A transpose is the usual step of a conversion.
# Seen: 0.5.3 copies the values in order (tobytes). 0.8.0 writes the memory behind the array as it lies there and puts the new shape in the
# header. There is no error and no warning; a line of the documentation asks for "contiguous and dense" arrays, and a transpose is both
# for numpy's Fortran order. Shapes and statistics of the file are right, so only a comparison of values finds it:
#     the array         [[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]]
#     safetensors 0.5.3 [[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]]
#     safetensors 0.8.0 [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
# numpy.ascontiguousarray before the save avoids it. Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpy==2.4.6
program='import sys, numpy, safetensors; from safetensors.numpy import load_file, save_file
array = numpy.arange(6, dtype="float32").reshape(3, 2).T
if sys.argv[2:]: print("the array        ", array.tolist())
save_file({"array": array}, sys.argv[1])
print("safetensors", safetensors.__version__, load_file(sys.argv[1])["array"].tolist())'
{
    "$folder/venv/bin/pip" install -q safetensors==0.5.3
    "$folder/venv/bin/python" -c "$program" "$folder/old.safetensors" first
    "$folder/venv/bin/pip" install -q safetensors==0.8.0
    "$folder/venv/bin/python" -c "$program" "$folder/new.safetensors"
} >"$folder/seen"
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
the array         [[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]]
safetensors 0.5.3 [[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]]
safetensors 0.8.0 [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
SEEN
