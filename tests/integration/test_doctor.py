"""``celery -A tasks doctor`` as people type it, with the real MLX and against a real server."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from tests.support import ROOT
from worker_config.settings import environment_with


def doctor(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "celery", "-A", "tasks", "doctor", *args],
        cwd=ROOT,
        env=environment_with(**environment),
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
        start_new_session=True,
    )


def lines_of(answer: dict[str, Any], section: str) -> dict[str, dict[str, str]]:
    return {line["what"]: line for line in answer["sections"][section]}


def test_doctor_of_a_machine_that_works(redis_url: str) -> None:
    """With Redis up and MLX installed doctor finds both, and every failure it knows of is about neither."""
    done = doctor("--json", REDIS_URL=redis_url)
    answer = json.loads(done.stdout)
    assert done.stderr == ""
    assert [line["level"] for line in answer["sections"]["redis"]] == ["ok", "ok"]
    assert lines_of(answer, "redis")["version"]["says"].startswith(("Valkey", "Redis"))
    mlx = lines_of(answer, "mlx")["MLX"]
    assert (mlx["level"], "computes on the" in mlx["says"]) == ("ok", True)
    assert answer["hardware"]["memory_bytes"] > 0
    failures = [line for lines in answer["sections"].values() for line in lines if line["level"] == "failure"]
    assert done.returncode == (1 if failures else 0)
    assert answer["ok"] is not bool(failures)


def test_doctor_of_a_server_with_another_password(redis_url: str) -> None:
    """A wrong password is one line with its remedy and exit status 1, shown neither itself nor as a traceback."""
    wrong = redis_url.replace(redis_url.split("@", maxsplit=1)[0], "redis://:not-the-password")
    done = doctor(REDIS_URL=wrong, CELERY_MLX_CHIP="M2 Pro", CELERY_MLX_MEMORY_GB="32")
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert "not-the-password" not in done.stdout + done.stderr
    assert "put the right user and password into REDIS_URL" in done.stdout
    assert "Apple M2 Pro [override]" in done.stdout
    assert "tier-7-13B" in done.stdout
    assert "13-27B needs 20 GPU cores, this machine has 16" in done.stdout
