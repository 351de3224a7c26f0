"""A worker that is started as its service file says: the same command, environment file and folder."""

from __future__ import annotations

import plistlib
import shlex
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tasks.cli.services import launchd, systemd
from tasks.cli.services.program import Program, environment_lines
from tasks.server import keys
from tests.processes import running
from tests.support import wait_until
from worker_config.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    import redis

    from tests import processes


@contextmanager
def as_launchd(program: Program, log: Path) -> Iterator[processes.Program]:
    """What launchd does with the property list."""
    values = plistlib.loads(launchd.text(program).encode())
    folder = Path(values["WorkingDirectory"])
    folder.mkdir(parents=True)
    with running(values["ProgramArguments"], log, {"REDIS_URL": ""}, cwd=folder) as started:
        yield started


@contextmanager
def as_systemd(program: Program, log: Path) -> Iterator[processes.Program]:
    """What systemd does with the unit; its environment files are read as a shell would read these."""
    unit = dict(line.split("=", 1) for line in systemd.text(program).splitlines() if "=" in line)
    said = [line.split("=", 1) for line in Path(unit["EnvironmentFile"]).read_text(encoding="utf-8").splitlines()[1:]]
    env = {name: shlex.split(value)[0] for name, value in said}
    with running(shlex.split(unit["ExecStart"]), log, env, cwd=log.parent) as started:
        yield started


@pytest.mark.parametrize("start", [as_launchd, as_systemd])
def test_a_worker_starts_and_ends_as_its_service(
    start: Callable[[Program, Path], AbstractContextManager[processes.Program]],
    redis_url: str,
    redis_client: redis.Redis,
    tmp_path: Path,
) -> None:
    """It registers with the settings of the environment file, and SIGTERM ends it with status 0."""
    environment = tmp_path / "environment"
    settings = Settings(redis_url=redis_url, chip="Apple M2 Pro", gpu_cores=19, memory_gb=32.0)
    environment.write_text("\n".join(environment_lines(settings)), encoding="utf-8")
    program = Program("worker", ("-n", "of-a-service@%h"), environment, 300.0, "", tmp_path)
    assert program.command[0] == sys.executable
    with start(program, tmp_path / "worker.log") as started:
        wait_until(
            lambda: started.alive() and redis_client.hkeys(keys.WORKERS), timeout_s=120, about="the worker's record"
        )
        record = str(redis_client.hvals(keys.WORKERS))
        assert "of-a-service@" in record
        assert "Apple M2 Pro" in record
        assert started.end() == 0, started.log()
