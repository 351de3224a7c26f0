"""Every example runs as a person starts it, on a real worker with the bundled model."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.support import ROOT, lasting_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import StartWorker

pytestmark = [pytest.mark.timeout(500), pytest.mark.xdist_group("examples")]
MODEL = {"CELERY_MLX_MODELS": "smollm2-135m", "CELERY_MLX_ALLOW_FAKE": ""}


def run(*command: str, timeout_s: float = 200.0) -> str:
    """What a command prints; it has to end with 0."""
    ended = subprocess.run(
        command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def example(name: str, *arguments: str) -> str:
    """What an example prints."""
    return run(sys.executable, f"examples/{name}.py", *arguments)


@pytest.fixture(scope="module")
def served(shared_worker: StartWorker) -> None:
    """One worker with the bundled model loaded."""
    shared_worker("-c", "8", env=MODEL)


@pytest.mark.usefixtures("served")
def test_stream_cancel_batch_priorities_failover() -> None:
    """The five that need nothing but a worker do what their first lines say."""
    assert "stop: 7 tokens by test-" in example("stream", "What is the capital of France?")
    assert "What is gravity?  74 tokens by test-" in example("failover", "1")
    cancelled = example("cancel")
    assert "finish_reason: cancelled" in cancelled
    assert "get() raises TaskRevokedError" in cancelled
    batch = example("batch", "4")
    assert "4 of 4" in batch
    assert "the group answered 2" in batch
    assert "answered; of the 12 batch requests" in example("priorities")


@pytest.mark.usefixtures("served")
def test_answers_that_are_data() -> None:
    """Each document becomes an invoice, and each text one of the labels."""
    assert "2 of 2 documents are data" in example("extract", "2")
    sorted_texts = example("classify").splitlines()
    assert len(sorted_texts) == 3
    assert {line.partition(" ")[0] for line in sorted_texts} <= {"bug", "question", "praise"}


@pytest.mark.usefixtures("served")
def test_raw_redis() -> None:
    """A stream is read with redis-py alone, from its task id."""
    code = "from tasks import generate; print(generate.delay(prompt='One, two,', max_tokens=4, temperature=0).id)"
    task_id = run(sys.executable, "-c", code).strip()
    assert "length" in example("raw_redis", task_id)


@pytest.fixture
def web() -> Iterator[str]:
    """The FastAPI example under uvicorn; its address."""
    port = lasting_port()
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "examples.fastapi_sse:web",
        "--port",
        str(port),
        "--log-level",
        "warning",
    ]
    server = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert server.poll() is None
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{address}/openapi.json").status_code == 200
        return False

    try:
        wait_until(answers, about="uvicorn")
        yield address
    finally:
        server.terminate()
        server.wait(60)


@pytest.mark.usefixtures("served")
def test_fastapi(web: str) -> None:
    """The answer comes as server-sent events; what is wrong with a request is a 400 that names it."""
    question = {"question": "What is the capital of France?", "max_tokens": "16"}
    with httpx.stream("GET", f"{web}/chat", params=question, timeout=120) as response:
        events = [
            json.loads(line.removeprefix("data: ")) for line in response.iter_lines() if line.startswith("data: ")
        ]
    assert events[-1]["finish_reason"] in ("stop", "length")
    assert len(events) > 1
    refused = httpx.get(f"{web}/chat", params={"question": "x", "max_tokens": "0"}, timeout=60)
    assert refused.status_code == 400
    assert "max_tokens=0" in refused.json()["detail"]


@pytest.mark.usefixtures("served")
@pytest.mark.skipif(shutil.which("npm") is None, reason="no npm: install Node.js to try the example in Node")
def test_node(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A producer in Node writes message and ledger in one MULTI, and reads the stream to its end."""
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "producer.mjs"):
        shutil.copy(ROOT / "examples" / "node" / name, folder)
    npm = ["npm", "install", "--silent", "--no-audit", "--no-fund"]
    subprocess.run(npm, cwd=folder, check=True, timeout=120, capture_output=True)
    ended = subprocess.run(
        ["node", "producer.mjs", "Name three colors."],
        cwd=folder, env=os.environ, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "stop: 11 tokens" in ended.stdout or "length: 64 tokens" in ended.stdout
