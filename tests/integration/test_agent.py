"""The cookbook's agent: its tools run on a worker of its own, a kill of that worker loses nothing, and a cancel ends it."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from benchmarks.parts.catalogue import write_catalogue
from benchmarks.parts.scripted_model import make_scripted_model
from tests.integration.test_tools import TOOLED_TEMPLATE
from tests.processes import running
from tests.support import ROOT, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import redis

    from tests.conftest import StartWorker
    from tests.processes import Program

pytestmark = pytest.mark.xdist_group("agent")
WAIT_S = 100.0
#: The model calls a tool, and says this once a tool has answered.
CALL, ANSWER = '{"name": "depth", "arguments": {"sea":"Baltic Sea"}}', "So 459 metres!"
#: Behind a tool's message the model goes on where its call has ended.
TEMPLATE = TOOLED_TEMPLATE.replace(
    "{% if add_generation_prompt %}",
    "{% if messages[-1].role == 'tool' %}{{ 'Sea\"}}</tool_call>' }}{% elif add_generation_prompt %}",
)
#: The example with a tool that waits for a key in Redis.
SLOW = """
import os, time
from examples.agent import *
from celery_mlx.server.connection import connect

app.conf.broker_transport_options |= {"visibility_timeout": float(os.environ["VISIBLE_S"]), "unacked_restore_interval": 0.2}
at_once = depth.run

def wait(sea):
    client = connect(app)
    client.incr("begun")
    while not client.exists("go"):
        time.sleep(0.01)
    return at_once(sea)

depth.run = wait
"""
#: A run to its end, and two that are cancelled: while the model is at work, and while its tool is.
RUNS = """
import os, runpy, sys, time
from celery.exceptions import TaskRevokedError
from celery_mlx.server.connection import connect

sys.argv = ["agent", "How deep?"]
runpy.run_module("examples.agent", run_name="__main__")
from examples.agent import *
client = connect(app)

def end(run):
    cancel(run)
    client.set("go", 1)
    try:
        app.AsyncResult(run).get(timeout=60)
    except TaskRevokedError as error:
        print(f"{run}: {error}")

def begin(run, model):
    os.environ["AGENT_MODEL"] = model
    client.delete("go", "begun")
    turn(run, [{"role": "user", "content": "?"}]).apply_async(task_id=run)

tool = os.environ["AGENT_MODEL"]
begin("model", "fake:100")
next(generate.AsyncResult("model.0").stream(timeout=60))
end("model")
begin("tool", tool)
while not client.exists("begun"):
    time.sleep(0.01)
end("tool")
"""


@pytest.fixture(scope="module")
def env(shared_worker: StartWorker, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A worker of the fleet that has the model; what the agent's processes have in their environment."""
    folder = tmp_path_factory.mktemp("agent")
    model = make_scripted_model(
        folder / "model",
        ["<tool_call>", CALL, "</tool_call>", ANSWER],
        added=("<tool_call>", "</tool_call>"),
        template=TEMPLATE,
    )
    (folder / "slow.py").write_text(SLOW)
    catalogue = str(write_catalogue(folder, {"caller": model}))
    shared_worker("-c", "4", "-Q", "tier-under-3B", env={"CELERY_MLX_CATALOGUE": catalogue})
    return {"CELERY_MLX_CATALOGUE": catalogue, "AGENT_MODEL": "caller", "PYTHONPATH": f"{folder}:{ROOT}"}


@contextmanager
def tools(env: dict[str, str], folder: Path, visible_s: float) -> Iterator[Program]:
    """The agent's own worker."""
    command = [sys.executable, "-m", "celery", "-A", "slow", "worker", "-P", "threads", "-c", "2", "-n", "agent@here"]
    with running([*command, "-l", "INFO"], folder / f"{visible_s}", {**env, "VISIBLE_S": str(visible_s)}) as worker:
        wait_until(lambda: worker.alive() and "agent@here ready" in worker.log(), timeout_s=WAIT_S)
        yield worker


def test_a_kill_and_cancels(env: dict[str, str], shared_redis: redis.Redis, tmp_path: Path) -> None:
    """The tool that a killed worker was at runs on the next one, and the model answers; cancels end both kinds of work."""
    with running([sys.executable, "-W", "ignore", "-c", RUNS], tmp_path / "runs", env) as runs:
        with tools(env, tmp_path, 3600) as first:
            wait_until(lambda: runs.alive() and shared_redis.exists("begun"), timeout_s=WAIT_S)
            first.process.kill()
            first.process.wait()
        shared_redis.set("go", 1)
        with tools(env, tmp_path, 5):
            assert runs.process.wait(WAIT_S) == 0, runs.log()
        answered, *cancelled = runs.log().splitlines()
        assert answered.endswith(f" {ANSWER}")
        assert cancelled == ["model: revoked", "tool: revoked"]
