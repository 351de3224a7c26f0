"""An engine process's life and death, seen from its worker. With the fake engine, which fails on request."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tasks.engine.fake import CRASH_EXITCODE, chat_prompt, fake_text
from tasks.hardware import detect
from tasks.messages.engine import EngineConfig, Shutdown, Submit
from tasks.messages.load import LoadFailed, Ready
from tasks.worker.engines.configs import MOST_BLAS_THREADS, engine_threads
from tasks.worker.engines.process import EngineGone, EngineProcess, ending
from tests.engine_client import EngineClient, resume_from
from tests.support import has_ended, wait_until
from worker_config.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

PARENT = """
import sys, time
from tasks.messages.engine import EngineConfig, Ready, Submit
from tasks.worker.engines.process import EngineProcess
engine = EngineProcess.start(EngineConfig(model="fake:1"))
while not isinstance(engine.receive(), Ready):
    pass
engine.send(Submit(task_id="stuck", messages=None, prompt=sys.argv[1], max_tokens=8000))
while engine.receive().step < 3:
    pass
print(engine.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def engine() -> Iterator[EngineClient]:
    """A fake engine that makes a step every 2 ms."""
    with EngineClient(EngineConfig(model="fake:2")) as client:
        assert client.ready
        yield client


def test_close_ends_the_process(engine: EngineClient) -> None:
    """It exits with code 0, receive() says so, and closing again does no harm."""
    engine.process.close(timeout_s=60)
    assert engine.process.exitcode == 0
    engine.wait(lambda: engine.gone)
    assert "exited with code 0" in str(engine.gone)
    engine.process.close()
    with pytest.raises(EngineGone):
        engine.process.send(Shutdown())


def test_close_does_not_wait_for_what_runs(engine: EngineClient) -> None:
    """A request in full swing is dropped."""
    engine.tokens(engine.submit("long", 8000), 2)
    engine.process.close(timeout_s=60)
    assert engine.process.exitcode == 0


def test_close_kills_an_engine_that_does_not_listen(engine: EngineClient) -> None:
    """A stopped process cannot answer, and is gone all the same."""
    os.kill(engine.process.pid, signal.SIGSTOP)
    wait_until(lambda: psutil.Process(engine.process.pid).status() == psutil.STATUS_STOPPED)
    engine.process.close(timeout_s=0.1)
    assert engine.process.exitcode == -signal.SIGKILL


def test_sending_never_waits_for_an_engine_that_does_not_read(engine: EngineClient) -> None:
    """A stopped process takes nothing, and a message larger than any pipe's buffer holds up nobody who sends; once it goes
    on it has all of them, in order."""
    os.kill(engine.process.pid, signal.SIGSTOP)
    wait_until(lambda: psutil.Process(engine.process.pid).status() == psutil.STATUS_STOPPED)
    large = "word " * 1_000_000
    tasks = [engine.submit(prompt, 3) for prompt in (large, "small", large)]
    assert engine.process.exitcode is None
    os.kill(engine.process.pid, signal.SIGCONT)
    answers = [engine.answer(task_id) for task_id in tasks]
    assert answers[1].text == fake_text("small", None, 3)
    assert [answer.failed is None for answer in answers] == [False, True, False]  # a million words are over the context


@pytest.mark.skipif(sys.platform != "linux", reason="the out-of-memory killer with this file is Linux's")
def test_linux_kills_an_engine_before_its_worker(engine: EngineClient) -> None:
    """The engine's share of the out-of-memory killer's score is higher than its worker's, which can start another engine."""
    own, its = (int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in ("self", engine.process.pid))
    assert its == min(own + 500, 1000)


def test_a_killed_engine_is_reported(engine: EngineClient) -> None:
    """receive() raises and names the signal."""
    engine.process.kill()
    gone = engine.wait(lambda: engine.gone)
    assert gone.exitcode == -signal.SIGKILL
    assert "SIGKILL" in str(gone)


def test_a_crash_comes_after_the_tokens_before_it(engine: EngineClient) -> None:
    """``!crash@5``: five tokens arrive, then the process is gone with its exit code."""
    task_id = engine.submit("!crash@5", 20)
    gone = engine.wait(lambda: engine.gone)
    assert gone.exitcode == CRASH_EXITCODE
    assert engine.answers[task_id].text == fake_text("!crash@5", None, 5)


def test_a_crash_that_happens_once_lets_the_next_attempt_pass(engine: EngineClient) -> None:
    """``!crash-once@5`` kills the first attempt; the resumed one goes on to the end."""
    task_id = engine.submit("!crash-once@5", 20)
    engine.wait(lambda: engine.gone)
    first = engine.answers[task_id]
    with EngineClient(EngineConfig(model="fake:0")) as another:
        second = another.ask("!crash-once@5", 20, resume=resume_from(first, 5, another.ready.revision))
    assert first.text + second.text == fake_text("!crash-once@5", None, 20)


@pytest.mark.parametrize(
    ("cores", "chosen", "threads"), [(4, None, "4"), (64, None, str(MOST_BLAS_THREADS)), (4, "3", "3")]
)
def test_an_engine_computes_on_all_cores_unless_somebody_chose(
    cores: int, chosen: str | None, threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A BLAS thread for each core that the worker may use, up to a bound; the operator's own choice goes before it."""
    monkeypatch.setattr("psutil.cpu_count", lambda logical: 64 if logical else cores)
    config = EngineConfig(model="fake:0", threads=engine_threads(replace(detect(Settings()), cpu_cores=cores)))
    monkeypatch.delenv("MKL_NUM_THREADS")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    if chosen:
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", chosen)
    with EngineProcess.start(config) as process:
        assert isinstance(process.receive(), Ready)
        environment = psutil.Process(process.pid).environ()
    assert environment["OPENBLAS_NUM_THREADS"] == threads
    assert environment["MKL_NUM_THREADS"] == str(min(cores, MOST_BLAS_THREADS))


def test_last_words_are_logged_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    """What the process writes to stderr goes to the worker's log, and its end into the error."""
    caplog.set_level(logging.INFO)
    process = EngineProcess.start(EngineConfig(model="fake:0"))
    with process:
        assert isinstance(process.receive(), Ready)
        process.send("no message of ours")  # type: ignore[arg-type]
        with pytest.raises(EngineGone, match="exited with code 1") as raised:
            process.receive()
    assert "a message from the worker could not be read" in str(raised.value)
    wait_until(lambda: f"engine {process.pid}: a message from the worker could not be read" in caplog.text)


def test_signals_meant_for_the_worker_do_not_end_the_engine(engine: EngineClient) -> None:
    """Ctrl-C and a service manager's stop reach the whole process group; the worker decides when engines end."""
    task_id = engine.submit("drain", 100)
    engine.tokens(task_id, 1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
        os.kill(engine.process.pid, number)
    assert engine.answer(task_id).text == fake_text("drain", None, 100)


@pytest.mark.parametrize("prompt", ["long", "!hang@3"])
def test_an_engine_dies_with_its_parent(prompt: str) -> None:
    """After the parent's kill -9 it ends, whether it runs or is stuck in a step; within 2 s where the machine has time."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, prompt], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert parent.stdout is not None
    with parent, parent.stdout:
        engine = int(parent.stdout.readline())
        parent.kill()
        wait_until(lambda: has_ended(engine))


def test_requests_that_come_while_it_loads_are_answered() -> None:
    """A worker need not wait for Ready before it submits; an abort meanwhile counts too."""
    with EngineClient(EngineConfig(model="fake:0:load_s=3")) as engine:
        kept, dropped = engine.submit("early", 3), engine.submit("regretted", 3)
        engine.abort(dropped)
        assert engine.answer(kept).text == fake_text("early", None, 3)
        assert engine.answer(dropped).reason == "cancelled"
        assert engine.ready.load_s >= 3


@pytest.mark.parametrize(
    ("model", "says"),
    [("fake:0:load_error=no luck today", "no luck today"), ("fake:quick", "fake:STEP_MS"), ("fake:1:x=2", "load_s=")],
)
def test_a_failure_to_load_is_one_message(model: str, says: str) -> None:
    """LoadFailed with its code, then the process ends."""
    with EngineClient(EngineConfig(model=model)) as engine:
        failed = engine.load_failed
        assert failed.code == "model_load_failed"
        assert says in failed.message
        assert "Traceback" not in failed.message
        engine.wait(lambda: engine.gone)
    assert engine.process.exitcode == 1


def test_a_step_that_fails_ends_the_process(engine: EngineClient, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a step raises, the worker sees the engine die with the reason in its log, and can replace it."""
    engine.submit("!break@2", 8)
    gone = engine.wait(lambda: engine.gone)
    assert gone.exitcode == 1
    assert "asked the fake engine to break" in str(gone)
    wait_until(lambda: "a step failed" in caplog.text)


def test_the_fake_engine_says_what_fake_text_says(engine: EngineClient) -> None:
    """Raw prompts, chats and seeds; some characters come in two tokens and are never halved."""
    messages = [{"role": "user", "content": "hello"}]
    assert engine.ask("hello", 40).text == fake_text("hello", None, 40)
    chat = engine.ask(messages, 40)
    assert chat.text == fake_text(chat_prompt(messages), None, 40)
    assert "\ufffd" not in chat.text
    assert "" in chat.texts
    assert fake_text("hello", 1, 9) != fake_text("hello", 2, 9)
    assert fake_text("hello", None, 40).startswith(fake_text("hello", None, 13))


def test_the_fake_engine_loads_no_mlx() -> None:
    """Nothing heavy is imported, so that it starts in a moment."""
    code = (
        "import sys, tasks.engine.__main__, tasks.worker.engines.process\n"
        "print([name for name in ('mlx', 'mlx_lm', 'numpy', 'transformers', 'celery', 'redis') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_answer_on_the_terminal() -> None:
    """``python -m tasks.engine fake:0 --prompt hi --raw`` prints the text, and an error with exit code 1."""
    command = [sys.executable, "-m", "tasks.engine", "fake:0", "--raw", "--max-tokens", "9", "--prompt"]
    done = subprocess.run([*command, "hi"], capture_output=True, text=True, check=True)
    assert done.stdout == fake_text("hi", None, 9)
    assert "9 tokens, length" in done.stderr
    failed = subprocess.run([*command, "!fail"], capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "invalid_request" in failed.stderr


@pytest.mark.parametrize("arguments", [["fake:x", "--prompt", "hi"], ["fake:0"], []])
def test_a_wrong_command_line_is_one_line(arguments: list[str]) -> None:
    """No traceback for the person who typed it."""
    command = [sys.executable, "-m", "tasks.engine", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in {1, 2}
    assert "Traceback" not in done.stderr


def test_load_failure_is_the_first_thing_received() -> None:
    """The worker reads LoadFailed before it sees the process end."""
    with EngineProcess.start(EngineConfig(model="fake:0:load_error=gone")) as process:
        assert isinstance(process.receive(), LoadFailed)
        with pytest.raises(EngineGone):
            process.receive()
        with pytest.raises(EngineGone):
            process.send(Submit(task_id="late", messages=None, prompt="x", max_tokens=1))


def test_a_machine_without_room_for_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """start() raises what the system says, and leaves no descriptor behind."""
    before = psutil.Process().num_fds()
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(OSError, match="/no/such/python"):
        EngineProcess.start(EngineConfig(model="fake:0"))
    wait_until(lambda: psutil.Process().num_fds() <= before)  # as do other threads of this process, now and then


def test_a_process_that_closes_its_pipe_and_stays_is_ended() -> None:
    """Without a pipe it is of no use."""
    process = EngineProcess.start(EngineConfig(model="fake:0:load_s=60"), exit_wait_s=0.2)
    process._pipe._link.shutdown(socket.SHUT_RDWR)
    with pytest.raises(EngineGone):
        process.receive()
    assert process.exitcode is not None


@pytest.mark.parametrize(
    ("exitcode", "says"), [(0, "exited with code 0"), (-9, "was ended by SIGKILL"), (-99, "was ended by signal 99")]
)
def test_how_an_end_is_told(exitcode: int, says: str) -> None:
    """By name where the signal has one."""
    assert ending(exitcode) == says
