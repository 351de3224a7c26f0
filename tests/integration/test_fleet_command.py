"""``celery -A tasks fleet`` against a real server, and its control of a real worker."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from celery.bin.base import CLIContext
from click import ClickException
from click.testing import CliRunner

from tasks.broker.queues.queues import depths
from tasks.cli import fleet as command
from tasks.cli.overview import plain
from tasks.cli.remote import tell
from tasks.fleet.reading import read_state
from tasks.registry import Registry
from tasks.server import keys
from tasks.server.connection import connect
from tests.fleet import LEASE_MS, Ghost, message, record
from tests.refusals import EX_UNAVAILABLE
from tests.support import ROOT, commands_processed, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis
    from celery import Celery
    from click.testing import Result

    from tests.conftest import StartWorker


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A client that answers in bytes."""
    with closing(connect(redis_url)) as client:
        yield client


@pytest.fixture
def fleet(producer_app: Celery) -> Callable[..., Result]:
    """Runs the command in this process."""

    def run(*args: str) -> Result:
        context = CLIContext(app=producer_app, no_color=True, workdir=None)
        return CliRunner().invoke(command.fleet, args, obj=context, catch_exceptions=False)

    return run


def test_an_empty_fleet_is_told_how_to_start(fleet: Callable[..., Result]) -> None:
    """With nothing registered the command works, and says what to do."""
    result = fleet("--once")
    assert result.exit_code == 0
    assert "celery -A tasks worker" in result.output
    assert "no sweep ever ran" in result.output


def test_json_is_one_object(fleet: Callable[..., Result], client: redis.Redis) -> None:
    """Programs read workers, queues and warnings out of one object."""
    with Ghost(client):
        values = json.loads(fleet("--json").output)
    assert [value["node"] for value in values["workers"]] == ["mac@lab"]
    assert {value["queue"] for value in values["queues"]} >= {"tier-3-7B", "tier-30B-plus"}


def test_garbage_is_shown_as_unreadable(fleet: Callable[..., Result], client: redis.Redis) -> None:
    """Whatever stands in the hash, the others are shown and it is named."""
    client.hset(keys.WORKERS, mapping={b"\xff\x1b[31m": b"\x00", "new@lab": json.dumps({"v": 9})})
    with Ghost(client):
        output = fleet("--once").output
    assert "mac@lab" in output
    assert "new@lab  unreadable: written by a newer version (record version 9" in output
    assert "\x1b" not in output
    assert "warning: 2 records cannot be read" in output


def test_queues_have_depth_and_age(client: redis.Redis) -> None:
    """All priorities count; the age is the ledger's, else the message's own, else unknown; other types count nothing."""
    now = client.time()[0]
    client.lpush("tier-3-7B", json.dumps(message("old")), json.dumps(message("young")))
    client.hset(keys.LEDGER, "old", json.dumps({"at": now - 100}))
    late = message("late")
    late["headers"]["submitted_at"] = now - 1000
    client.lpush("tier-3-7B\x06\x169", json.dumps(late))
    client.lpush("tier-7-13B", "garbage", json.dumps(message("unknown")))
    client.set("tier-30B-plus", "no list")
    found = {depth.queue: depth for depth in depths(client, ["tier-3-7B", "tier-7-13B", "tier-30B-plus", "empty"])}
    assert found["tier-3-7B"].depth == 3
    assert found["tier-3-7B"].oldest_s == pytest.approx(1000, abs=60)
    assert (found["tier-7-13B"].depth, found["tier-7-13B"].oldest_s) == (2, None)
    assert (found["tier-30B-plus"].depth, found["empty"].depth) == (0, 0)
    assert depths(client, []) == []


def test_a_dead_worker_is_silent_and_serves_nothing(client: redis.Redis) -> None:
    """Without a lease a record is history, whatever it says."""
    with Ghost(client):
        client.delete(keys.alive("mac@lab#b1"))
        state = read_state(client)
    assert [worker.condition for worker in state.workers] == ["silent"]
    assert {queue.workers for queue in state.queues} == {0}


def test_five_hundred_workers_are_shown_in_few_commands(client: redis.Redis) -> None:
    """Looking at a large fleet takes no more round trips than looking at a small one."""
    for number in range(500):
        worker_record = record(f"w{number:03}@lab", metrics={"tokens_per_s": 1.0, "padding": "x" * 2000})
        Registry(client).register(worker_record, LEASE_MS)
    before = commands_processed(client)
    lines = list(plain.lines(read_state(client)))
    spent = commands_processed(client) - before
    assert sum("@lab" in line for line in lines) == 500
    assert spent <= 100


def test_show_finds_a_worker_by_part_of_its_name(fleet: Callable[..., Result], client: redis.Redis) -> None:
    """The whole name always works; a part does if it is not ambiguous."""
    with Ghost(client, "a@one"), Ghost(client, "a@two"), Ghost(client, "b@two"):
        assert "a@one" in fleet("show", "a@one").output
        assert "a@one" in fleet("show", "one").output
        assert json.loads(fleet("show", "b", "--json").output)["node"] == "b@two"
        ambiguous = fleet("show", "a")
        assert ambiguous.exit_code == 1
        assert "a@one, a@two" in ambiguous.output
        unknown = fleet("show", "a@on")
        assert unknown.exit_code == 1
        assert "did you mean a@one" in unknown.output


def test_show_remembers_the_departed(fleet: Callable[..., Result], client: redis.Redis) -> None:
    """A worker that is gone still has its last record."""
    with Ghost(client) as ghost:
        ghost.registry.leave(ghost.record)
    assert "left" in fleet("show", "mac@lab").output
    assert json.loads(fleet("show", "lab", "--json").output)["departed"] == "left"
    assert "none is registered" in fleet("show", "nobody").output


def test_a_worker_that_does_not_answer_is_reported(
    fleet: Callable[..., Result], producer_app: Celery, client: redis.Redis
) -> None:
    """Drain says that it was not heard, and how the worker was last seen."""
    context = CLIContext(app=producer_app, no_color=True, workdir=None)
    with Ghost(client), pytest.raises(ClickException, match=r"mac@lab did not answer within 0\.2 s; it is online"):
        tell(context, "mac", "drain", answer_s=0.2)
    assert "no worker is called 'x'" in fleet("resume", "x").output


def test_without_redis_there_is_one_clear_line(fleet: Callable[..., Result], redis_server: Any) -> None:
    """No traceback: what failed, and an exit status."""
    redis_server.stop()
    for args in (["--once"], ["--json"], ["show", "x"], ["drain", "x"]):
        result = fleet(*args)
        assert result.exit_code == EX_UNAVAILABLE
        assert result.output.startswith("Error: redis://:***@127.0.0.1:")
        assert "start it there, or set REDIS_URL to where it is" in result.output


def test_a_real_worker_drains_and_resumes(
    worker: StartWorker, fleet: Callable[..., Result], client: redis.Redis
) -> None:
    """It answers at once, its record says so, and it takes requests again when told to."""
    started = worker("-Q", "tier-under-3B", env={"CELERY_MLX_HEARTBEAT_S": "30"})
    result = fleet("drain", started.node)
    assert (result.exit_code, result.output) == (0, f"{started.node}: draining (told to take nothing more)\n")
    wait_until(lambda: (found := started.record()) and found.status == "draining")
    assert all(not queue.workers for queue in read_state(client).queues)
    result = fleet("resume", started.node)
    assert (result.exit_code, result.output) == (0, f"{started.node}: online\n")
    wait_until(lambda: (found := started.record()) and found.status == "online")


def test_the_installed_command_shows_a_live_screen(client: redis.Redis) -> None:
    """On a terminal the view is renewed; r shows the requests, w the workers again, and q ends it quietly."""
    with Ghost(client) as ghost:
        own, theirs = pty.openpty()
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "tasks", "fleet"],
                cwd=ROOT,
                env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"},
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                start_new_session=True,
            )
        finally:
            os.close(theirs)
        try:
            for awaited, key in (("mac@lab", b"r"), ("no request runs or waits", b"w"), ("q quit   r requests", b"q")):
                seen = ""
                deadline = time.monotonic() + 100
                while awaited not in seen:
                    assert time.monotonic() < deadline, seen
                    seen += os.read(own, 65536).decode(errors="replace")
                os.write(own, key)
            assert process.wait(60) == 0
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            os.close(own)
        assert ghost.beat() == "ok"


def test_the_simulator_registers_measures_and_cleans_up(client: redis.Redis, redis_url: str) -> None:
    """A simulated fleet can be looked at, and leaves nothing in the registry."""
    done = subprocess.run(
        [sys.executable, "benchmarks/simulated_fleet.py", "--workers", "3", "--measure", "--redis", redis_url],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "3 workers registered" in done.stdout
    assert "one round of the sweep: p50" in done.stdout
    assert not client.exists(keys.WORKERS)
    assert len(Registry(client).history()) == 3
