#!/usr/bin/env bash
# pytest-xdist 3.8.0 with pytest 9.2.0 (Python 3.11): --dist loadgroup spreads the tests of a group over the processes.
#
# Guess: tests of one xdist_group run in one process, as with pytest 9.1.1; pip sees no conflict between the two, and nothing warns.
# Seen: xdist writes a group into a field of the test that pytest 9.2 does not read any more, and then divides tests by names without groups. A suite
# stays green and gets slower (each process makes the group's fixtures), or fails where two of the group may not run side by side:
#     pytest 9.1.1: 1 process
#     pytest 9.2.0: 2 processes
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
cat >"$folder/test_group.py" <<'PYTHON'
import os
import pathlib
import time

import pytest


@pytest.mark.xdist_group("one")
@pytest.mark.parametrize("number", range(8))
def test_in_a_group(number):
    time.sleep(0.2)
    (pathlib.Path(os.environ["RAN"]) / os.environ["PYTEST_XDIST_WORKER"]).touch()
PYTHON
cd "$folder"
for version in 9.1.1 9.2.0; do
    "$folder/venv/bin/pip" install -q pytest==$version pytest-xdist==3.8.0
    mkdir "$folder/$version"
    RAN="$folder/$version" "$folder/venv/bin/python" -m pytest -q -p no:cacheprovider -n 2 --dist loadgroup test_group.py >"$folder/log"
    count=$(find "$folder/$version" -type f | wc -l)
    echo "pytest $version: $count process$([ "$count" = 1 ] || echo es)" >>"$folder/seen"
done
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
pytest 9.1.1: 1 process
pytest 9.2.0: 2 processes
SEEN
