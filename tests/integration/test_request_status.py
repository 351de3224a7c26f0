"""What a producer and an operator learn of a request while it waits, runs and ends; and how an operator ends requests."""

from __future__ import annotations

import json
import uuid
from copy import copy
from typing import TYPE_CHECKING, Any

import pytest
from celery import states
from celery.bin.base import CLIContext
from celery.exceptions import TaskRevokedError
from click.testing import CliRunner

from tasks.cli import fleet as command
from tasks.errors import InvalidRequest, ModelLoadFailed, StreamTimeout
from tests.support import wait_until
from worker_config.celeryconfig import DEFAULT_QUEUE
from worker_config.tiers import QUEUES

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis
    from celery import Celery
    from click.testing import Result

    from tasks.client.result import GenerateResult
    from tasks.generate import GenerateTask
    from tests.conftest import StartWorker
    from tests.support import Worker

# Celery 5.7 stores and reads results with commands that redis-py 8 calls deprecated.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Call to deprecated:DeprecationWarning"),
    pytest.mark.xdist_group("request-status"),
]

WAIT_S = 60.0
QUEUE_OF_NOBODY = "tier-30B-plus"


@pytest.fixture(scope="module")
def generate(shared_app: Celery) -> GenerateTask:
    from tasks import generate

    assert generate.app is shared_app
    return generate


@pytest.fixture(scope="module")
def node(shared_worker: StartWorker) -> Worker:
    return shared_worker("-Q", "tier-under-3B")


@pytest.fixture
def fleet(shared_app: Celery, shared_redis: redis.Redis) -> Callable[..., Result]:
    """Runs the command in this process."""

    def run(*args: str) -> Result:
        context = CLIContext(app=shared_app, no_color=True, workdir=None)
        return CliRunner().invoke(command.fleet, args, obj=context, catch_exceptions=False)

    return run


def listed(fleet: Callable[..., Result], result: GenerateResult) -> dict[str, Any] | None:
    """What ``fleet requests --json`` says of this request."""
    found = json.loads(fleet("requests", "--json").output)["requests"]
    return next((request for request in found if request["task_id"] == result.id), None)


def waiting(generate: GenerateTask, **parameters: Any) -> GenerateResult:
    """A request in a queue that no worker serves."""
    return generate.apply_async(kwargs={"prompt": "hi", "model": "fake:1@30B+", **parameters}, queue=QUEUE_OF_NOBODY)


def test_from_a_load_to_the_end(node: Worker, generate: GenerateTask, fleet: Callable[..., Result]) -> None:
    """Loading, running with its tokens so far, and ended; Celery calls it PENDING, STARTED and SUCCESS."""
    result = generate.delay(prompt="hi", model="fake:20:load_s=6", max_tokens=500)
    wait_until(lambda: result.status().state == "loading", timeout_s=WAIT_S)
    loading = result.status()
    assert (loading.worker, loading.model) == (node.node, "fake:20:load_s=6")
    assert str(loading) == f"it waits while {node.node} loads fake:20:load_s=6"
    assert result.state == result.status == states.PENDING
    assert (found := listed(fleet, result)) is not None
    assert (found["place"], found["worker"], found["model"]) == ("held", node.node, "fake:20:load_s=6")
    stream = result.stream(timeout=WAIT_S)
    while next(stream).index < 5:
        pass
    running = result.status()
    assert (running.state, running.attempt) == ("running", 1)
    assert running.worker is not None
    assert running.worker.startswith(node.node)
    assert 5 <= running.tokens <= 500
    assert result.state == result.status == states.STARTED
    assert (found := listed(fleet, result)) is not None
    assert found["place"] == "running"
    assert found["tokens"] >= running.tokens
    with pytest.raises(StreamTimeout, match=rf"timeout=0 s is over: worker {running.worker} has sent \d+ tokens"):
        result.get(timeout=0)
    list(stream)
    ended = result.status()
    assert (ended.state, ended.tokens, ended.finish_reason, ended.error_code) == ("ended", 500, "length", None)
    assert str(ended) == "it has ended: length, 500 tokens"
    result.get(timeout=WAIT_S)
    assert result.state == states.SUCCESS
    wait_until(lambda: listed(fleet, result) is None, about="its message acknowledged")


def test_a_queue(generate: GenerateTask, fleet: Callable[..., Result]) -> None:
    """How many are ahead; cancelled by its id it is no longer open."""
    first, second = waiting(generate), waiting(generate)
    status = second.status()
    assert (status.state, status.ahead, status.worker) == ("queued", 1, None)
    assert str(status) == "no worker has claimed it: 1 is ahead of it"
    with pytest.raises(StreamTimeout, match="no worker has claimed it: 1 is ahead of it"):
        second.get(timeout=0.1)
    lines = fleet("requests").output.splitlines()
    assert lines[0].split() == ["request", "state", "where", "model", "for", "tokens", "tok/s"]
    assert [line.split()[:4] for line in lines[1:]] == [
        [result.id, "waiting", QUEUE_OF_NOBODY, "fake:1@30B+"] for result in (first, second)
    ]
    assert fleet("requests", "--limit", "1").output.splitlines()[-1] == "… and 1 more: --limit 2 shows them"
    assert fleet("purge", "30B+", "-f").output == f"{QUEUE_OF_NOBODY}: 2 requests ended as cancelled\n"
    for result in (first, second):
        assert [chunk.finish_reason for chunk in result.stream(timeout=WAIT_S)] == ["cancelled"]
        with pytest.raises(TaskRevokedError):
            result.get(timeout=WAIT_S)
        assert str(result.status()) == "it has ended: cancelled, 0 tokens"
    assert fleet("requests").output == "no request runs or waits\n"


def test_scheduled(node: Worker, generate: GenerateTask, fleet: Callable[..., Result]) -> None:
    """A request with a countdown is listed as such."""
    result = generate.apply_async(kwargs={"prompt": "hi", "model": "fake:1"}, countdown=500)
    assert (found := listed(fleet, result)) is not None
    assert found["place"] == "scheduled"
    assert result.status().state == "queued"
    assert fleet("cancel", result.id).exit_code == 0
    wait_until(lambda: result.status().state == "ended", about="the cancel of what is scheduled")


def test_cancel(node: Worker, generate: GenerateTask, fleet: Callable[..., Result]) -> None:
    """A running request ends at once; one that has ended, or that nobody knows, is an error of the command."""
    result = generate.delay(prompt="hi", model="fake:20", max_tokens=8_000)
    next(result.stream(timeout=WAIT_S))
    said = fleet("cancel", result.id[:12])
    assert (said.exit_code, said.output.startswith(f"{result.id}: cancelled (worker {node.node}")) == (0, True)
    assert [chunk.finish_reason for chunk in result.stream(timeout=WAIT_S)][-1] == "cancelled"
    again = fleet("cancel", result.id, "nobody-knows-this")
    assert again.exit_code == 1
    assert "not cancelled: it has ended: cancelled" in again.output
    assert "nobody-knows-this: not cancelled: unknown: no queue, worker or result has" in again.output


def test_unknown_and_failed(
    node: Worker, shared_app: Celery, generate: GenerateTask, fleet: Callable[..., Result]
) -> None:
    """An id of nobody is told from one that waits; an error is told by its code, and the fleet shows its reason."""
    assert generate.AsyncResult(str(uuid.uuid4())).status().state == "unknown"
    wrong = shared_app.send_task("tasks.generate", kwargs={"prompt": 1}, queue="tier-under-3B")
    result = generate.AsyncResult(wrong.id)
    with pytest.raises(InvalidRequest):
        result.get(timeout=WAIT_S)
    status = result.status()
    assert (status.state, status.error_code, status.finish_reason) == ("ended", "invalid_request", None)
    with pytest.raises(ModelLoadFailed):
        generate.delay(prompt="hi", model="fake:1:load_error=broken").get(timeout=WAIT_S)
    seen = wait_until(
        lambda: [failure for failure in json.loads(fleet("--json").output)["failures"] if failure["reason"]]
    )
    assert (seen[0]["node"], seen[0]["code"]) == (node.node, "model_load_failed")
    assert "broken" in seen[0]["reason"]


def test_the_name_of_the_state_is_text(generate: GenerateTask) -> None:
    """``result.status`` goes into JSON, into a comparison and to another process as Celery's does."""
    name = generate.AsyncResult(str(uuid.uuid4())).status
    assert json.dumps({"status": name}) == '{"status": "PENDING"}'
    assert type(copy(name)) is str


def test_a_queue_of_nobody_is_not_purged(fleet: Callable[..., Result]) -> None:
    """A misspelt name empties nothing, and the names are listed."""
    said = fleet("purge", "tier-7-13b", "-f")
    assert said.exit_code == 1
    said_first, _, names = said.output.partition("; they are ")
    assert said_first == "Error: no queue is called 'tier-7-13b'"
    known = sorted((DEFAULT_QUEUE, *QUEUES))
    # Other tests of this process may have declared queues of their own.
    assert [name for name in names.strip().split(", ") if name in known] == known
    assert known[:2] == ["celery", "tier-13-27B"]
