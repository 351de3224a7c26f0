"""``celery -A tasks bulk`` on a real worker: run, status and cancel; files, pipes and a terminal."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from celery.bin.base import CLIContext
from click.testing import CliRunner

from tasks.bulk.job import Job
from tasks.bulk.record import JobRecord, Records
from tasks.cli import bulk as command
from tests.support import ROOT, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import redis
    from celery import Celery
    from click.testing import Result

    from tests.conftest import StartWorker
    from tests.support import Worker

pytestmark = pytest.mark.xdist_group("bulk-command")

MODEL = "fake:1"


@pytest.fixture(scope="module")
def node(shared_worker: StartWorker) -> Worker:
    return shared_worker("-c", "4", env={"CELERY_MLX_MODELS": MODEL})


@pytest.fixture
def bulk(shared_app: Celery) -> Callable[..., Result]:
    """Runs the command in this process."""

    def run(*args: str, given: bytes = b"") -> Result:
        context = CLIContext(app=shared_app, no_color=True, workdir=None)
        return CliRunner().invoke(command.bulk, args, obj=context, input=given, catch_exceptions=False)

    return run


def lines(count: int, **more: Any) -> bytes:
    """Plain lines."""
    return b"".join(
        json.dumps({"id": f"p{n}", "prompt": str(n), "max_tokens": 2, **more}).encode() + b"\n" for n in range(count)
    )


def test_files(bulk: Callable[..., Result], node: Worker, tmp_path: Path) -> None:
    """Each line is answered, the summary has the usage, and status knows the job by its output."""
    source, target = tmp_path / "input.jsonl", tmp_path / "output.jsonl"
    source.write_bytes(lines(20) + b"{\n")
    result = bulk("run", str(source), str(target), "--model", MODEL)
    assert result.exit_code == 0
    assert "completed: 20 answered, 1 failed; 20 prompt and 40 completion tokens" in result.stderr
    assert "\n1 invalid_request, as line 21: not JSON (" in result.stderr
    assert len(target.read_bytes().splitlines()) == 21
    shown = bulk("status", str(target))
    assert re.search(r" completed +21 of 21 +1 +40 +\d+s +.*output.jsonl", shown.output)
    (job,) = [job for job in json.loads(bulk("status", "--json").output)["jobs"] if job["output"] == str(target)]
    assert (job["state"], job["done"]) == ("completed", 21)
    again = bulk("run", str(source), str(target), "--model", MODEL, "--json")
    counts = json.loads(again.stderr.splitlines()[-1])
    assert (counts["done"], counts["written_before"]) == (21, 21)
    again = bulk("run", str(source), str(target), "--model", MODEL)
    assert "completed: nothing to do, all 21 lines were written before, 1 of them failed" in again.stderr
    # Another default is another job.
    other = bulk("run", str(source), str(target), "--model", MODEL, "--max-tokens", "3")
    assert other.exit_code == 1
    assert "choose another output, or remove this one" in other.output
    # Errors in a file of their own.
    apart = tmp_path / "answers.jsonl", tmp_path / "errors.jsonl"
    bulk("run", str(source), str(apart[0]), "--errors", str(apart[1]), "--model", MODEL)
    assert [len(path.read_bytes().splitlines()) for path in apart] == [20, 1]


def test_pipes(bulk: Callable[..., Result], node: Worker) -> None:
    """With ``-`` lines come from standard input, and nothing but answers goes to standard output."""
    result = bulk("run", "-", "-", "--model", MODEL, given=lines(5))
    assert result.exit_code == 0
    assert sorted(json.loads(line)["id"] for line in result.stdout.splitlines()) == ["p0", "p1", "p2", "p3", "p4"]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("run", "no-such-file", "-"), "no-such-file: cannot be read"),
        (("run", "-", "-", "--deadline", "soon"), "give seconds above 0, or a time as 30m, 24h or 2d"),
        (("run", "-", "-", "--deadline", "0h"), "give seconds above 0"),
        (("run", "-", "no/such/folder/out"), "cannot be opened"),
        (("run", "-", "-", "--model", "nobody's"), 'model "nobody\'s" is neither in the catalogue'),
        (("run", "-", "-", "--max-tokens", "0"), "0 is not in the range x>=1"),
        (("status", "nobody"), "no bulk job is called 'nobody'"),
        (("cancel", "nobody"), "no bulk job is called 'nobody'"),
    ],
)
def test_wrong_arguments(bulk: Callable[..., Result], args: tuple[str, ...], says: str) -> None:
    """One line says what to do."""
    result = bulk(*args)
    assert result.exit_code in (1, 2)
    assert says in result.output


def test_cancel(bulk: Callable[..., Result], node: Worker, shared_redis: redis.Redis, tmp_path: Path) -> None:
    """A driver that runs is told to stop, and ends with a status of its own; the same command goes on."""
    source, target = tmp_path / "input.jsonl", tmp_path / "output.jsonl"
    source.write_bytes(lines(60, model="fake:50", max_tokens=10))
    program = [sys.executable, "-m", "celery", "-A", "tasks", "bulk", "run", str(source), str(target)]
    with subprocess.Popen(program, cwd=ROOT, stderr=subprocess.PIPE, text=True) as driver:
        wait_until(lambda: target.exists() and target.read_bytes(), timeout_s=60)
        assert "its driver stops within a second or two" in bulk("cancel", str(target)).output
        assert driver.wait(60) == 75
        assert driver.stderr is not None
        assert "cancelled: " in driver.stderr.read()
    wait_until(lambda: not shared_redis.keys("tier-*"))
    assert bulk("run", str(source), str(target), "--quiet").exit_code == 0
    assert len({json.loads(line)["id"] for line in target.read_bytes().splitlines()}) == 60


def test_terminated(node: Worker, shared_redis: redis.Redis, tmp_path: Path) -> None:
    """SIGTERM, like Ctrl-C, takes back what was sent and says how far it came."""
    source, target = tmp_path / "input.jsonl", tmp_path / "output.jsonl"
    source.write_bytes(lines(60, model="fake:50", max_tokens=10))
    program = [sys.executable, "-m", "celery", "-A", "tasks", "bulk", "run", str(source), str(target)]
    with subprocess.Popen(program, cwd=ROOT, stderr=subprocess.PIPE, text=True) as driver:
        wait_until(lambda: target.exists() and target.read_bytes(), timeout_s=60)
        driver.send_signal(signal.SIGTERM)
        assert driver.wait(60) == 130
        assert driver.stderr is not None
        assert "interrupted: " in driver.stderr.read()
    wait_until(lambda: not shared_redis.keys("tier-*"))


def test_two_that_begin_alike(bulk: Callable[..., Result], shared_redis: redis.Redis) -> None:
    """None of them is cancelled by what both ids begin with; the whole id of one, or its output, says which."""
    records = Records(shared_redis)
    for job_id in ("abcd00", "abcd01"):
        records.write(JobRecord(job_id=job_id, output=f"/{job_id}.jsonl", status="interrupted"))
    result = bulk("cancel", "abcd")
    assert result.exit_code == 1
    assert "the ids of 2 bulk jobs begin with 'abcd': abcd0" in result.output
    assert bulk("cancel", "abcd01").output.startswith("abcd01: interrupted")
    assert bulk("cancel", "/abcd00.jsonl").output.startswith("abcd00: interrupted")


def test_cancel_of_a_dead_one(
    bulk: Callable[..., Result], shared_app: Celery, shared_redis: redis.Redis, tmp_path: Path
) -> None:
    """What a driver that was killed has left in the queues is taken back."""
    source = tmp_path / "input.jsonl"
    source.write_bytes(lines(30, model="fake:1@3-7B"))
    job = Job(shared_app, source, tmp_path / "output.jsonl")
    job.__enter__()
    job._step([])
    records = Records(shared_redis)
    shared_redis.hset(f"celery-mlx:bulk:{job.job_id}", "updated_at", "1")
    assert bulk("cancel", job.job_id[:8]).output.endswith("interrupted; 16 of its requests were taken back\n")
    assert not shared_redis.keys("tier-3-7B*")
    job.__exit__()
    found = records.read(job.job_id)
    assert isinstance(found, JobRecord)
    assert found.source == str(source)
