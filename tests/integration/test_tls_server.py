"""Everything over TLS, on a real server: the URL is all that has to be said."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tasks.demo.embedded import EmbeddedServer, find_server
from tasks.demo.errors import SetupError
from tasks.demo.process import GuardedProcess
from tasks.server import keys
from tests.certificates import certificates
from tests.support import ROOT, lasting_port, wait_until
from worker_config.settings import environment_with

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.xdist_group("tls")

PRODUCER = """
from tasks import generate
result = generate.delay(prompt="private", model="fake:10", max_tokens=20)
assert "".join(chunk.text for chunk in result.stream(timeout=60)) == result.get(timeout=60)["text"]
long = generate.delay(prompt="long", model="fake:10", max_tokens=5000)
chunks = long.stream(timeout=60)
next(chunks)
long.revoke(terminate=True)
assert list(chunks)[-1].finish_reason == "cancelled"
"""


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EmbeddedServer, str, Path]]:
    """A server with TLS, its URL without an authority, and the folder of certificates."""
    folder = tmp_path_factory.mktemp("tls")
    own = certificates(folder, "own")
    port = lasting_port()
    config = [f"tls-port {port}", "tls-auth-clients no"]
    config += [f"tls-{name}-file {own / file}" for name, file in PEMS.items()]
    found = [str(find_server()), shutil.which("valkey-server"), shutil.which("redis-server")]
    with ExitStack() as stack:
        for program in filter(None, found):
            server = EmbeddedServer(config=config, program=Path(program))
            try:
                stack.enter_context(server)
            except SetupError:  # built without TLS, as that of the wheel is
                continue
            url = f"rediss://:{server.password}@127.0.0.1:{port}/0?ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs="
            yield server, url, folder
            return
    pytest.skip("no server on this machine is built with TLS; apt install redis-server has one")


PEMS = {"cert": "server.pem", "key": "server.key", "ca-cert": "ca.pem"}


def run(url: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a program that has this Redis."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment_with(REDIS_URL=url),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def test_everything_over_tls(secured: tuple[EmbeddedServer, str, Path], tmp_path: Path) -> None:
    """A worker with its sweep, a producer with its streams and cancels, and the fleet's commands."""
    server, base, folder = secured
    url = base + str(folder / "own" / "ca.pem")
    options = ["-n", "tls@here", "-B", "-s", str(tmp_path / "beat"), "-Q", "tier-under-3B", "-l", "INFO"]
    worker = GuardedProcess(
        [sys.executable, "-m", "celery", "-A", "tasks", "worker", *options],
        log=tmp_path / "worker.log",
        grace_s=15,
        env=environment_with(REDIS_URL=url, CELERY_MLX_MODELS="fake:10"),
    )
    try:
        import redis

        with redis.Redis.from_url(server.url, decode_responses=True) as client:
            wait_until(lambda: "online" in str(client.hget(keys.WORKERS, "tls@here")), timeout_s=120, about="a worker")
        produced = run(url, "-c", PRODUCER)
        assert produced.returncode == 0, produced.stderr + (tmp_path / "worker.log").read_text()
        for command in (["fleet", "--once"], ["metrics", "--once"], ["inspect", "ping", "-d", "tls@here", "-t", "60"]):
            done = run(url, "-m", "celery", "-A", "tasks", *command)
            assert done.returncode == 0, done.stdout + done.stderr
            assert "tls@here" in done.stdout
    finally:
        worker.stop()


def test_another_authority_is_refused(secured: tuple[EmbeddedServer, str, Path]) -> None:
    """A server whose certificate is not of the authority that the URL names is not spoken to, and the error says so."""
    _, base, folder = secured
    other = certificates(folder, "other")
    done = run(base + str(other / "ca.pem"), "-c", PRODUCER)
    assert done.returncode != 0
    assert "certificate verify failed" in done.stderr.splitlines()[-1]
