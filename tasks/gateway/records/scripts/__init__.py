"""The scripts that gateways run in Redis."""

from __future__ import annotations

from functools import partial

from tasks.server.script import read_script

source = partial(read_script, __name__)
