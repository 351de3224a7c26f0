"""Calls of a producer over connections that died without a word: each comes back, with the answer or with one error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.line import Line
from tests.support import MARK, ROOT, assert_gone, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from celery import Celery

pytestmark = [
    pytest.mark.xdist_group("silence"),
    # Celery 5.7 stores results with a command that redis-py 8 calls deprecated.
    pytest.mark.filterwarnings("ignore:Call to deprecated:DeprecationWarning"),
]

QUICK = {"CELERY_MLX_REDIS_TIMEOUT_S": "1", "CELERY_MLX_REDIS_PATIENCE_S": "3"}
#: Of a program whose calls have to succeed, also where an answer of Redis takes some seconds.
PATIENT = {"CELERY_MLX_REDIS_TIMEOUT_S": "7", "CELERY_MLX_REDIS_PATIENCE_S": "60"}
#: What each call comes to when nothing answers. Celery's own look at a state raises redis-py's error.
CALLS = {
    "delay": "BrokerUnavailable",
    "get": "BrokerUnavailable",
    "stream": "BrokerUnavailable",
    "astream": "BrokerUnavailable",
    "revoke": "BrokerUnavailable",
    "revoke_group": "BrokerUnavailable",
    "position": "BrokerUnavailable",
    "state": "TimeoutError",
}
RETURNED = {call: {"returned"} for call in CALLS}


class Caller:
    """The program ``tests.caller``."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def begin(self, calls: Iterable[str], url: str, task_id: str, threads: int) -> None:
        """Have it make these calls at once, each on so many threads."""
        assert self._process.stdin is not None
        order = {"calls": list(calls), "url": url, "id": task_id, "threads": threads}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def outcomes(self) -> dict[str, set[str]]:
        """What came of each call."""
        assert self._process.stdout is not None
        found: dict[str, list[str]] = json.loads(self._process.stdout.readline())
        return {call: set(outcomes) for call, outcomes in found.items()}

    def call(self, calls: Iterable[str], url: str, task_id: str, threads: int = 8) -> dict[str, set[str]]:
        """Both."""
        self.begin(calls, url, task_id, threads)
        return self.outcomes()


@pytest.fixture(scope="module")
def caller() -> Iterator[Caller]:
    """A producer that lives as long as the module's tests: what one call leaves behind is there for the next."""
    yield from _callers(QUICK)


@pytest.fixture(scope="module")
def patient() -> Iterator[Caller]:
    """A producer that gives up later."""
    yield from _callers(PATIENT)


def _callers(settings: Mapping[str, str]) -> Iterator[Caller]:
    mark = uuid.uuid4().hex
    with subprocess.Popen(
        [sys.executable, "-m", "tests.caller"],
        cwd=ROOT, env={**os.environ, **settings, MARK: mark}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        yield Caller(process)
        assert process.stdin is not None
        process.stdin.close()
    assert_gone(mark)


@pytest.fixture(scope="module")
def line(shared_app: Celery) -> Iterator[Line]:
    """The way that the module's tests share: it is warm."""
    with Line(shared_app.conf.broker_url) as found:
        yield found


@pytest.fixture
def waiting(shared_app: Celery) -> str:
    """A request that nobody serves."""
    from tasks import generate

    return str(generate.delay(prompt="x", model="fake:1").id)


@pytest.fixture
def ended(shared_app: Celery) -> str:
    """A request whose result is stored."""
    task_id = str(uuid.uuid4())
    shared_app.backend.store_result(task_id, {"text": "x", "finish_reason": "stop"}, "SUCCESS")
    return task_id


@pytest.fixture
def warm(caller: Caller, line: Line, ended: str) -> Iterator[Line]:
    """The shared way, after every call has used it on eight threads."""
    # On a busy machine a first call may take longer than these short bounds.
    wait_until(lambda: caller.call(CALLS, line.url, ended) == RETURNED, timeout_s=120)
    yield line
    line.heal()


@pytest.mark.parametrize("fault", ["go_silent", "go_half"])
def test_nothing_comes_back(caller: Caller, warm: Line, waiting: str, fault: str) -> None:
    """Where nothing answers, in a process that has long been connected, each call says so, on each of eight threads."""
    getattr(warm, fault)()
    assert caller.call(CALLS, warm.url, waiting) == {call: {outcome} for call, outcome in CALLS.items()}
    warm.heal()
    wait_until(lambda: caller.call(["delay"], warm.url, waiting) == {"delay": {"returned"}}, timeout_s=120)


def test_first_use(caller: Caller, waiting: str, shared_app: Celery) -> None:
    """The same for the very first call of a process, whichever it is."""
    with ExitStack() as lines:
        for call, outcome in CALLS.items():
            cold = lines.enter_context(Line(shared_app.conf.broker_url))
            cold.go_silent()
            assert caller.call([call], cold.url, waiting, threads=1) == {call: {outcome}}


def test_forgotten_connections(patient: Caller, line: Line, ended: str) -> None:
    """Connections that a router forgot are given up, and each call succeeds on a new one."""
    assert patient.call(CALLS, line.url, ended) == RETURNED
    for call in CALLS:
        line.forget()
        assert patient.call([call], line.url, ended) == {call: {"returned"}}


def test_refused_for_a_while(patient: Caller, line: Line, waiting: str, ended: str, shared_app: Celery) -> None:
    """Who waits for an answer waits through refused connections, and gets it."""
    assert patient.call(CALLS, line.url, ended) == RETURNED
    line.refuse()
    refused = line.refused
    patient.begin(["get", "stream", "astream"], line.url, waiting, 8)
    wait_until(lambda: line.refused >= refused + 2, about="two refused connections")
    shared_app.backend.store_result(waiting, {"text": "late", "finish_reason": "stop"}, "SUCCESS")
    line.heal()
    assert patient.outcomes() == {"get": {"returned"}, "stream": {"returned"}, "astream": {"returned"}}
