"""The demo as a person types it, and as a person ends it: nothing of it stays behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from contextlib import closing
from typing import TYPE_CHECKING, Protocol

import pytest
import redis

from tests.support import MARK, ROOT, assert_gone, runs_engine, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("bundled_model")
DEMO_TIMEOUT_S = 240


class Demo:
    """One run of ``python -m tasks.demo`` without a terminal."""

    def __init__(self, folder: Path, arguments: tuple[str, ...], env: dict[str, str]) -> None:
        self.mark = uuid.uuid4().hex
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        self.output = folder / "output"
        inherited = {name: value for name, value in os.environ.items() if name != "REDIS_URL"}
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tasks.demo", *arguments],
                cwd=ROOT,
                env={**inherited, MARK: self.mark, "TMPDIR": str(self.temporary), **env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def text(self) -> str:
        """All that it has printed so far."""
        return self.output.read_text(encoding="utf-8")

    def wait(self) -> int:
        """The exit status."""
        return self.process.wait(DEMO_TIMEOUT_S)

    def wait_for_engine(self) -> None:
        """Return once server, worker, beat and engine are there and questions may be on their way."""

        def started() -> bool:
            assert self.process.poll() is None, self.text()
            return runs_engine(self.mark)

        wait_until(started, timeout_s=120, about="the demo's engine")

    def wait_for_answer(self) -> None:
        """Return once one answer is complete; others of the demo's own questions take longer."""

        def answered() -> bool:
            assert self.process.poll() is None, self.text()
            return "\n[" in self.text()

        wait_until(answered, timeout_s=120, about="the first answer")

    def nothing_left(self) -> None:
        """No process and no temporary file."""
        assert_gone(self.mark)
        left = {path.name for path in self.temporary.iterdir()} - {"mlx"}  # what MLX compiled, for the next time
        assert left == set()


class StartDemo(Protocol):
    """The type of the fixture ``demo``."""

    def __call__(self, *arguments: str, env: dict[str, str] = ...) -> Demo: ...


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[StartDemo]:
    """Starts demos and sees to it that they are gone after the test."""
    started: list[Demo] = []

    def start(*arguments: str, env: dict[str, str] | None = None) -> Demo:
        started.append(Demo(tmp_path, arguments, env or {}))
        return started[-1]

    yield start
    for demo in started:
        print(demo.text())
        if demo.process.poll() is None:
            demo.process.kill()
            demo.process.wait()
        assert_gone(demo.mark)


def test_shows_several_answers_and_stops_everything(demo: StartDemo) -> None:
    """Without a terminal it prints four sensible answers and a summary, exits 0, and nothing is left."""
    run = demo()
    assert run.wait() == 0, run.text()
    text = run.text()
    assert "\n1. Red\n2. Blue\n3. Green\n" in text
    assert "\nThe capital of France is Paris.\n" in text
    assert "\nPhotosynthesis is a vital biological process that occurs in plants, algae, and some bacteria" in text
    assert "\nGravity is a fundamental concept in physics that describes" in text
    assert "tokens per second" in text
    assert "answered 4 of 4" in text
    together = re.search(
        r"all at once        (\d+) tokens in .* tokens/s(.*)\none after another  \1 tokens in .*\n(.*)", text
    )
    assert together
    # A busy machine may need as long for all at once, and then the comparison says why.
    assert together[2].endswith(" times as fast") or together[3].startswith("Other programs use this machine (load ")
    assert "celery -A tasks up " in text
    assert "\x1b" not in text
    run.nothing_left()


def test_a_kill_takes_everything_along(demo: StartDemo) -> None:
    """After kill -9 of the demo alone, worker, engine, beat and server end by themselves and remove their files."""
    run = demo()
    run.wait_for_answer()
    run.process.kill()
    run.wait()
    run.nothing_left()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_stops_everything_in_order(demo: StartDemo, number: signal.Signals) -> None:
    """Ctrl-C, or a polite kill, gives the usual exit status, no traceback, and leaves nothing."""
    run = demo("--max-tokens", "400")
    run.wait_for_answer()
    run.process.send_signal(number)
    assert run.process.wait(60) == 128 + number
    assert "Traceback" not in run.text()
    run.nothing_left()


def test_an_interruption_while_it_starts_stops_everything(demo: StartDemo) -> None:
    """Ctrl-C before the worker is ready leaves nothing either."""
    run = demo()
    run.wait_for_engine()
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(60) == 128 + signal.SIGINT
    assert run.text().endswith("stopped\n")
    run.nothing_left()


def test_an_impatient_interruption_stops_everything_at_once(demo: StartDemo) -> None:
    """Ctrl-C once more while it stops: the rest is killed, and nothing is left either."""
    run = demo()
    run.wait_for_engine()
    run.process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    run.process.send_signal(signal.SIGINT)
    assert run.wait() == 128 + signal.SIGINT
    assert "Traceback" not in run.text()
    run.nothing_left()


def test_bad_parameters_are_one_line(demo: StartDemo) -> None:
    """What ``generate`` refuses is shown as its own message, without a traceback."""
    run = demo("Why?", "--max-tokens", "0")
    assert run.wait() == 1
    assert run.text().splitlines()[-1].startswith("error: max_tokens")
    assert "Traceback" not in run.text()
    run.nothing_left()


def test_a_redis_that_does_not_answer_is_one_line(demo: StartDemo) -> None:
    """With ``REDIS_URL`` set no other server is started; if it does not answer, one line says so."""
    run = demo(env={"REDIS_URL": "redis://127.0.0.1:1/0"})
    assert run.wait() == 1
    assert run.text().splitlines()[-1].startswith("error: the Redis that REDIS_URL names does not answer (")
    assert "Traceback" not in run.text()
    run.nothing_left()


def test_your_own_question_and_your_own_redis(demo: StartDemo, redis_url: str) -> None:
    """A question on the command line is the only one that is asked, as a chat; the server of ``REDIS_URL`` carries it, and
    goes on afterwards."""
    run = demo("What is 'gravity'?", "--max-tokens", "8", env={"REDIS_URL": redis_url})
    assert run.wait() == 0, run.text()
    assert "[1] What is 'gravity'?\n" in run.text()
    assert "answered 1 of 1" in run.text()
    assert "photosynthesis" not in run.text()
    run.nothing_left()
    with closing(redis.Redis.from_url(redis_url)) as client:
        assert client.keys("celery-task-meta-*")
