#!/usr/bin/env bash
# mlx-lm 0.32.2 (Linux, Python 3.11): importing it changes the limits of the process, for good.
#
# Guess: an import of a library for inference leaves the process's limits as they are; at most it raises a soft limit that is low.
# Seen: mlx_lm/utils.py calls setrlimit(RLIMIT_NOFILE, (2048, 4096)) as it is imported. A server that was started with 8,192 files has
# 2,048 afterwards, and without privileges can never have more than 4,096 again. Where the hard limit is below 4,096, as in a container
# that was started with --ulimit nofile=1024, the import itself fails for a user without privileges ("not allowed to raise maximum limit").
#     before  (8192, 8192)
#     after   (2048, 4096)
# Succeeds while that is so, and fails when it changes. The hard limit of the shell has to be 8,192 or more.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
case $(uname -s) in Linux) extra='[cpu]' ;; *) extra='' ;; esac
"$folder/venv/bin/pip" install -q "mlx-lm$extra==0.32.2"
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
import resource

resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
print("before ", resource.getrlimit(resource.RLIMIT_NOFILE))
import mlx_lm

print("after  ", resource.getrlimit(resource.RLIMIT_NOFILE))
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
before  (8192, 8192)
after   (2048, 4096)
SEEN
