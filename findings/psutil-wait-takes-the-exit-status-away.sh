#!/usr/bin/env bash
# psutil 7.2.2 (Linux, Python 3.11): a child that failed has ended well, for who asks after psutil.
#
# Guess: waiting with psutil (wait(), or wait_procs() for several, with a time-out) looks at a process, as its other functions do. The Popen
# object of the same child still knows how it ended, or says that it does not.
# Seen: psutil collects the child's status, and there is only one. subprocess then finds no child, and takes 0 for its status: a supervisor
# that waits for its workers with psutil.wait_procs and asks `popen.returncode` afterwards sees a success for each crash:
#     Popen.wait() alone:                     3
#     psutil.Process(pid).wait(), then Popen: 3, then 0
#     psutil.Popen(...).wait(), twice:        3, then 3
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q psutil==7.2.2
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
import subprocess
import sys

import psutil

FAIL = [sys.executable, "-c", "raise SystemExit(3)"]

print(f"{'Popen.wait() alone:':39}", subprocess.Popen(FAIL).wait())
child = subprocess.Popen(FAIL)
print(f"{'psutil.Process(pid).wait(), then Popen:':39}", f"{psutil.Process(child.pid).wait()}, then {child.wait()}")
child = psutil.Popen(FAIL)
print(f"{'psutil.Popen(...).wait(), twice:':39}", f"{child.wait()}, then {child.wait()}")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
Popen.wait() alone:                     3
psutil.Process(pid).wait(), then Popen: 3, then 0
psutil.Popen(...).wait(), twice:        3, then 3
SEEN
