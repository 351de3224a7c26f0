"""Redis's password is in no output of any command, and in no process that does not need it."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING
from urllib.parse import quote

import psutil
import pytest
import redis

from tasks.demo.embedded import EmbeddedServer, find_server, server_version
from tasks.demo.process import GuardedProcess
from tasks.server import keys
from tests.refusals import EX_CONFIG, refused
from tests.support import ROOT, command_of, lasting_port, wait_until
from worker_config.settings import REDIS_VARIABLES, environment_with

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("passwords")
#: With a character for each way to cut a URL in the wrong place. Both halves are looked for.
PASSWORD = "Zfirst/?#@:;% Zsecond"
NODE = "secret@here"
COMMANDS = (("doctor",), ("fleet", "--json"), ("metrics", "--once"), ("service", "print", "worker"))
#: What ``celery report`` and ``celery inspect report``, ``conf`` and ``stats`` print.
INSPECT = """
from tasks import app
ask = app.control.inspect(timeout=10, destination=["secret@here"], limit=1)
print(app.bugreport(), ask.report(), ask.conf(with_defaults=True), ask.stats(), app.conf.humanize(with_defaults=True))
"""
PAGES = ("workers", f"worker/{NODE}", "broker")


def shows_password(text: str) -> bool:
    """Whether one half of the password is in a text."""
    return "Zfirst" in text or "Zsecond" in text


def start(*command: str, log: Path, url: str) -> GuardedProcess:
    """A command that goes on, with its output in a file."""
    whole = [sys.executable, "-m", "celery", "-A", "tasks", *command]
    environment = environment_with(REDIS_URL=url, CELERY_MLX_MODELS="fake:5")
    return GuardedProcess(whole, log=log, grace_s=15, env=environment)


def outputs(*commands: tuple[str, ...], url: str) -> dict[str, str]:
    """All that each of these commands prints; they run side by side."""
    begun = {
        " ".join(command): subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=environment_with(REDIS_URL=url),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for command in commands
    }
    return {name: process.communicate(timeout=120)[0] for name, process in begun.items()}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The URL of a server whose user has that password."""
    if (server_version(find_server()) or ()) < (6,):
        pytest.skip("ACLs need Redis 6 or Valkey")
    with EmbeddedServer(config=[f'user "shop" on "#{sha256()}" ~* &* +@all']) as server:
        yield f"redis://shop:{quote(PASSWORD, safe='')}@127.0.0.1:{server.port}/0"


def sha256() -> str:
    """The password's digest, as an ACL may have it."""
    import hashlib

    return hashlib.sha256(PASSWORD.encode()).hexdigest()


@pytest.fixture(scope="module")
def worker(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The log of a worker that says all it can, with a beat in it."""
    folder = tmp_path_factory.mktemp("passwords")
    typed = ("worker", "-n", NODE, "-E", "-l", "DEBUG", "-B", "-s", str(folder / "beat"), "-Q", "tier-under-3B")
    process = start(*typed, log=folder / "log", url=url)
    with contextlib.closing(redis.Redis.from_url(url, decode_responses=True)) as client:
        wait_until(
            lambda: "ready" in str(client.hget(keys.WORKERS, NODE)), timeout_s=120, about="a worker with its engine"
        )
    yield folder / "log"
    process.stop()


def test_no_command_shows_it(url: str, worker: Path) -> None:
    """Neither a worker's log nor what Celery's commands and our own print has any part of the password."""
    said = outputs(("-c", INSPECT), *(("-m", "celery", "-A", "tasks", *command) for command in COMMANDS), url=url)
    assert all("Traceback" not in text and len(text) > 100 for text in said.values()), said
    said["the worker's log"] = worker.read_text()
    assert [name for name, text in said.items() if shows_password(text)] == []


@pytest.mark.usefixtures("worker")
def test_flower_does_not_show_it(url: str, tmp_path: Path) -> None:
    """Nor does Flower, which asks workers for their configuration, in its log or on its pages."""
    port = lasting_port()
    flower = start("flower", f"--port={port}", "--logging=debug", log=tmp_path / "log", url=url)
    try:
        pages = dict.fromkeys(PAGES, "")

        def complete() -> bool:
            for page in pages:
                with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}") as answer:
                    pages[page] = answer.read().decode()
            return all(pages.values()) and "broker_url" in pages[PAGES[1]]

        wait_until(complete, timeout_s=120, about="Flower's pages")
    finally:
        flower.stop()
    assert not [page for page, text in pages.items() if shows_password(text)]
    assert not shows_password((tmp_path / "log").read_text())


def test_processes_without_redis_do_not_have_it(url: str, worker: Path) -> None:
    """No command line has the password, and an engine's environment has not either."""
    assert url
    engines = [process for process in psutil.process_iter() if _is_engine(process)]
    assert engines, worker.read_text()
    parent = psutil.Process(engines[0].ppid())
    for process in [parent, *parent.children(recursive=True)]:
        assert not shows_password(" ".join(command_of(process)))
    assert "CELERY_MLX_MODELS" in engines[0].environ()
    assert not shows_password(str(engines[0].environ()))


def _is_engine(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return "tasks.engine" in process.cmdline() and NODE in " ".join(psutil.Process(process.ppid()).cmdline())
    return False


CELERY = ("-m", "celery", "-A", "tasks")
DELAY = ("-c", "from tasks import generate; generate.delay(prompt='x', model='fake:1')")


@pytest.mark.parametrize(
    ("wrong", "command"),
    [
        ("sentinel://:{0}@127.0.0.1:1;sentinel://:{0}@127.0.0.1:2", (*CELERY, "beat", "--pidfile=")),
        ("redis://127.0.0.1:1/0?password={0}&socket_timeout=1", DELAY),
        ("redis://:{0}@127.0.0.1:1/0", (*CELERY, "doctor")),
    ],
)
def test_no_refusal_shows_it(wrong: str, command: tuple[str, ...]) -> None:
    """A URL that cannot be used is refused in one line, without its password."""
    (text,) = outputs(command, url=wrong.format(PASSWORD)).values()
    assert not shows_password(text)
    assert len(re.findall(r"^(?:celery-mlx|\S+SettingError): REDIS_URL='\S+://", text, re.MULTILINE)) == 1, text


@pytest.mark.parametrize("option", ["-b", "--result-backend"])
def test_an_address_that_is_typed(option: str) -> None:
    """Celery would take it apart in a traceback, with the password: ``REDIS_URL`` alone names Redis."""
    code, message = refused(option, f"redis://:{PASSWORD}@127.0.0.1:1/0", "worker")
    assert code == EX_CONFIG
    assert message == f"{option}: all parts of the fleet find Redis by REDIS_URL: set that, and leave {option} out"


SHOWN = """
from tasks import app
from tasks.broker.results import Backend
print(type(app.backend) is Backend, app.backend.as_uri(include_password=True), app.conf.result_backend, app.bugreport())
print(*(make().as_uri(include_password=True) for make in (app.connection_for_read, app.connection_for_write)))
"""


def test_variables_of_another_application(monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery prefers its own variables to an application's options; here ``REDIS_URL`` decides, and none of them is shown."""
    for name in REDIS_VARIABLES - {"REDIS_URL"}:
        monkeypatch.setenv(name, f"redis://elsewhere:1/0?password={PASSWORD}")
    (said,) = outputs(("-c", SHOWN), url="redis://:own@here:2/3").values()
    assert said.startswith("True redis://:own@here:2/3 ")
    assert said.splitlines()[-1] == "redis://:own@here:2/3 redis://:own@here:2/3"
    assert "elsewhere" not in said
    assert not shows_password(said)
