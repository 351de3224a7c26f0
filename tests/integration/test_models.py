"""Models come and go on real workers: loaded on request, in turns where there is not room for all, and never too many."""

from __future__ import annotations

import json
import os
import pty
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from celery.bin.base import CLIContext
from click.testing import CliRunner

from benchmarks.parts.tiny_model import make_tiny_model
from tasks.cli import models as command
from tasks.engine.fake import fake_text
from tasks.errors import ModelLoadFailed, OutOfMemory
from tasks.messages.registry import EngineState
from tasks.registry import Registry
from tasks.server import keys
from tasks.server.connection import connect
from tests.fleet import LEASE_MS, record
from tests.hub_server import BLOCK_BYTES, HubServer
from tests.support import ROOT, wait_until
from worker_config.hub import fetched_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import redis
    from celery import Celery
    from click.testing import Result

    from tasks.generate import GenerateTask
    from tests.conftest import StartWorker
    from tests.support import Worker

WAIT_S = 90.0
QUEUE = "tier-under-3B"
#: How long the random load lasts; set it for minutes of it.
LOAD_S = float(os.environ.get("MODELS_LOAD_S", "25"))
#: Memory, of which 80 % are for models, with room for one, two and three models of 8 MB and their engines (284 MiB each).
ROOM_FOR_ONE, ROOM_FOR_TWO, ROOM_FOR_THREE = "0.5", "0.8", "1.2"
QUICK = {"CELERY_MLX_HEARTBEAT_S": "0.2"}


def sized(step_ms: int, options: str = "") -> str:
    """A model that computes nothing, and takes memory."""
    return f"fake:{step_ms}:weights_mb=8{options}"


def loads(worker: Worker) -> Counter[str]:
    """How often a worker has loaded each model."""
    return Counter(
        line.partition("loading model ")[2].partition(",")[0]
        for line in worker.log().splitlines()
        if "loading model " in line
    )


def engines(worker: Worker) -> dict[str, Any]:
    """A worker's engines by model, as its record has them."""
    record = worker.record()
    return {engine.model: engine for engine in record.engines} if record is not None else {}


class TestTurns:
    def test_with_room_for_both_each_loads_once(self, generate: GenerateTask, worker: StartWorker) -> None:
        """Requests for two models in turn, with room for both: every one is answered, and each model is loaded once."""
        node = worker(env={**QUICK, "CELERY_MLX_MEMORY_GB": ROOM_FOR_TWO})
        names = [sized(1), sized(2)]
        results = [
            (name, generate.delay(prompt=str(n), model=name, max_tokens=10)) for n in range(20) for name in names
        ]
        for n, (name, result) in enumerate(results):
            answer = result.get(timeout=WAIT_S)
            assert (answer["text"], answer["model"]) == (fake_text(str(n // 2), None, 10), name)
        assert loads(node) == dict.fromkeys(names, 1)

    def test_with_room_for_one_they_take_turns(self, generate: GenerateTask, worker: StartWorker) -> None:
        """Requests for two models in turn, with room for one: every one is answered, and a model that is loaded serves all that
        wait for it before the other comes."""
        names = [sized(1), sized(2)]
        results = [generate.delay(prompt=str(n), model=name, max_tokens=10) for n in range(20) for name in names]
        node = worker(env={**QUICK, "CELERY_MLX_MEMORY_GB": ROOM_FOR_ONE})
        assert all(result.get(timeout=WAIT_S)["finish_reason"] == "length" for result in results)
        assert loads(node).total() <= 4
        record = node.record()
        assert record is not None
        assert sum(engine.reserved_bytes for engine in record.engines) <= record.budget_bytes

    def test_one_that_always_has_work_gives_way(self, generate: GenerateTask, worker: StartWorker) -> None:
        """A model with work all the time has to make room for another after the time in the settings; both are served."""
        node = worker(env={**QUICK, "CELERY_MLX_MEMORY_GB": ROOM_FOR_ONE, "CELERY_MLX_FAIR_WAIT_S": "1"})
        over = threading.Event()

        def always() -> None:
            while not over.is_set():
                generate.delay(prompt="again", model=sized(20), max_tokens=250).get(timeout=WAIT_S)

        streams = [threading.Thread(target=always) for _ in range(3)]
        for stream in streams:
            stream.start()
        try:
            wait_until(lambda: sized(20) in engines(node), timeout_s=WAIT_S)
            answer = generate.delay(prompt="once", model=sized(1), max_tokens=5).get(timeout=WAIT_S)
        finally:
            over.set()
            for stream in streams:
                stream.join(WAIT_S)
        assert answer["text"] == fake_text("once", None, 5)
        assert "takes no more requests: another model has waited for long" in node.log()

    def test_random_load(self, generate: GenerateTask, worker: StartWorker) -> None:
        """Three models, room for two, and requests at random: the budget is never passed, no request is lost, no model starves,
        and models come no oftener than docs/models.md says."""
        fair_s = 2.0
        node = worker(env={**QUICK, "CELERY_MLX_MEMORY_GB": ROOM_FOR_TWO, "CELERY_MLX_FAIR_WAIT_S": str(fair_s)})
        names = [sized(step) for step in (2, 5, 10)]
        until, slowest_s, answers = time.monotonic() + LOAD_S, [0.0], Counter[str]()
        over_budget: list[int] = []
        failures: list[BaseException] = []

        def client(seed: int) -> None:
            draw = random.Random(seed)
            while time.monotonic() < until:
                name, tokens = draw.choice(names), draw.randint(1, 60)
                started = time.monotonic()
                answer = generate.delay(prompt=str(seed), model=name, max_tokens=tokens).get(timeout=WAIT_S)
                slowest_s[0] = max(slowest_s[0], time.monotonic() - started)
                assert answer["text"] == fake_text(str(seed), None, tokens)
                answers[name] += 1
                time.sleep(draw.expovariate(2.0))

        def run(seed: int) -> None:
            try:
                client(seed)
            except BaseException as error:  # noqa: BLE001 -- it is the test's to report
                failures.append(error)

        clients = [threading.Thread(target=run, args=(seed,)) for seed in range(12)]
        for thread in clients:
            thread.start()
        while any(thread.is_alive() for thread in clients):
            record = node.record()
            assert record is not None
            over_budget.append(sum(engine.reserved_bytes for engine in record.engines) - record.budget_bytes)
            time.sleep(0.05)
        assert failures == []
        assert max(over_budget) <= 0
        assert min(answers[name] for name in names) > answers.total() / 10
        print(f"{answers.total()} answers, {loads(node).total()} loads, the slowest answer took {slowest_s[0]:.1f} s")
        # Each of the two places changes hands after half a second of idleness at the earliest.
        assert loads(node).total() <= min(answers.total(), 3 + 2 * LOAD_S / 0.5)


class TestMeanwhile:
    def test_a_slow_load_holds_up_nobody(
        self, generate: GenerateTask, worker: StartWorker, redis_client: redis.Redis
    ) -> None:
        """While one model loads the streams of another go on."""
        node = worker(env={**QUICK, "CELERY_MLX_MODELS": "fake:200"})
        streams = [generate.delay(prompt=str(n), model="fake:200", max_tokens=120) for n in range(4)]
        wait_until(lambda: getattr(engines(node).get("fake:200"), "running", 0) == 4, timeout_s=WAIT_S)
        slow = generate.delay(prompt="slow", model="fake:1:load_s=6", max_tokens=5)
        lengths: list[list[int]] = []

        def look() -> bool:
            if "loading" in (engine.state for model, engine in engines(node).items() if "load_s" in model):
                lengths.append([int(redis_client.xlen(keys.stream(stream.id))) for stream in streams])
            return bool(slow.ready())

        wait_until(look, timeout_s=WAIT_S)
        assert all(first < last for first, last in zip(lengths[0], lengths[-1], strict=True)), lengths
        for stream in streams:
            assert stream.get(timeout=WAIT_S)["usage"]["completion_tokens"] == 120

    def test_what_cannot_be_loaded(self, generate: GenerateTask, worker: StartWorker) -> None:
        """Its requests fail at once, with the reason; the others go on, and after three failures the worker is degraded."""
        node = worker(env={**QUICK, "CELERY_MLX_MODELS": "fake:20"})
        stream = generate.delay(prompt="goes on", model="fake:20", max_tokens=400)
        broken = "fake:1:load_error=no weights"
        tries = 0
        while (record := node.record()) is not None and record.status != "degraded":
            with pytest.raises(ModelLoadFailed, match="no weights"):
                generate.delay(prompt="x", model=broken, max_tokens=5).get(timeout=WAIT_S)
            tries += 1
            time.sleep(0.2)
        assert tries > 3
        assert loads(node)[broken] == 3
        assert "failed to load 3 times" in record.reason if record is not None else False
        assert engines(node)[broken].state == "failed"
        assert stream.get(timeout=WAIT_S)["usage"]["completion_tokens"] == 400

    def test_a_source_that_vanished(self, generate: GenerateTask, worker: StartWorker, tmp_path: Path) -> None:
        """A model whose folder is gone is one clear error."""
        catalogue = tmp_path / "catalogue.toml"
        gone = tmp_path / "gone"
        catalogue.write_text(f'[[models]]\nname = "gone"\nsource = "{gone}"\ntier = "<3B"\n')
        worker(env={"CELERY_MLX_CATALOGUE": str(catalogue)})
        with pytest.raises(ModelLoadFailed, match=f"{gone} does not exist: put the model there"):
            _send(generate, "gone").get(timeout=WAIT_S)


def _send(generate: GenerateTask, model: str, queue: str = QUEUE) -> Any:
    """A request for a model that this process's own catalogue does not have, as another producer would send it."""
    return generate.app.send_task(
        generate.name,
        kwargs={"prompt": "x", "model": model, "max_tokens": 5},
        queue=queue,
        result_cls=generate.AsyncResult,
    )


class TestIdle:
    def test_a_request_says_how_long(self, generate: GenerateTask, worker: StartWorker) -> None:
        """``keep_alive_s`` of a request has its model's engine end soon after it."""
        node = worker(env=QUICK)
        generate.delay(prompt="x", model="fake:1", max_tokens=5).get(timeout=WAIT_S)
        generate.delay(prompt="x", model="fake:2", max_tokens=5, keep_alive_s=0.3).get(timeout=WAIT_S)
        wait_until(lambda: set(engines(node)) == {"fake:1"}, timeout_s=WAIT_S)
        idle_s = engines(node)["fake:1"].idle_s
        assert idle_s is not None
        assert idle_s >= 0


class TestElsewhere:
    def test_what_fits_another_worker_is_left_to_it(self, generate: GenerateTask, worker: StartWorker) -> None:
        """A model too large for one worker is answered by the other; the first one takes each request at most once."""
        small = worker(env={**QUICK, "CELERY_MLX_MEMORY_GB": ROOM_FOR_ONE})
        large = worker(env={**QUICK, "CELERY_MLX_MEMORY_GB": ROOM_FOR_THREE})
        model = "fake:2:weights_mb=400"
        results = [generate.delay(prompt=str(n), model=model, max_tokens=20) for n in range(10)]
        assert {result.get(timeout=WAIT_S)["worker"] for result in results} == {large.node}
        received = Counter(line for line in small.log().splitlines() if "received" in line)
        assert loads(small).total() == 0
        for result in results:
            assert sum(count for line, count in received.items() if result.id in line) <= 1

    def test_what_fits_nowhere(self, generate: GenerateTask, worker: StartWorker) -> None:
        """A model too large for every live worker is an error with the numbers of all."""
        nodes = [worker(env={**QUICK, "CELERY_MLX_MEMORY_GB": ROOM_FOR_ONE}) for _ in range(2)]
        with pytest.raises(OutOfMemory, match=r"needs 1\.\d\d GB and this worker may use 0\.43 GB") as caught:
            generate.delay(prompt="x", model="fake:1:weights_mb=1000", max_tokens=5).get(timeout=WAIT_S)
        assert any(f"{node.node} 0.4 GB" in str(caught.value) for node in nodes)

    def test_an_idle_worker_takes_what_a_busy_one_set_aside(self, generate: GenerateTask, worker: StartWorker) -> None:
        """A request whose model a worker cannot load, for the work of others, goes to one that comes later."""
        env = {**QUICK, "CELERY_MLX_MEMORY_GB": ROOM_FOR_ONE, "CELERY_MLX_FAIR_WAIT_S": "600"}
        busy = worker(env=env)
        long = generate.delay(prompt="long", model=sized(20), max_tokens=5000)
        wait_until(lambda: engines(busy).get(sized(20)) and engines(busy)[sized(20)].running, timeout_s=WAIT_S)
        waiting = generate.delay(prompt="waits", model=sized(1), max_tokens=5)
        wait_until(lambda: _aside(generate), timeout_s=WAIT_S, about="a request set aside")
        position = waiting.position()
        assert position is not None
        assert position.ahead == 0
        idle = worker(env=env)
        answer = waiting.get(timeout=WAIT_S)
        assert answer["worker"] == idle.node
        assert answer["timing"]["queued_ms"] > 500  # since it was submitted, not since it was set aside
        long.revoke(terminate=True)


def refused_while_loaded(models: Callable[..., Result], url: str, name: str) -> str:
    """What ``remove`` says of a model that a worker on this machine has loaded."""
    known = record(f"one@{socket.gethostname()}", engines=[EngineState(model=name, state="ready")])
    with closing(connect(url)) as client:
        registry = Registry(client)
        registry.register(known, LEASE_MS)
        said = models("remove", "-f", name)
        registry.leave(known)
    assert said.exit_code == 1
    return said.output


def _aside(generate: GenerateTask) -> bool:
    with generate.app.connection_for_read() as connection:
        return bool(connection.default_channel.client.zcard(keys.ASIDE))


class TestCommands:
    @pytest.fixture
    def models(self, producer_app: Celery) -> Callable[..., Result]:
        """Runs the command in this process."""

        def run(*args: str) -> Result:
            context = CLIContext(app=producer_app, no_color=True, workdir=None)
            return CliRunner().invoke(command.models, args, obj=context, catch_exceptions=False)

        return run

    def test_load_pin_and_unload(
        self, models: Callable[..., Result], generate: GenerateTask, worker: StartWorker
    ) -> None:
        """A worker is told by name; what it has is in its record and in the list."""
        node = worker(env={**QUICK, "CELERY_MLX_KEEP_ALIVE_S": "1", "CELERY_MLX_MEMORY_GB": ROOM_FOR_ONE})
        assert "fake:1 is" in models("load", node.node, "fake:1").output
        assert "fake:2 is" in models("pin", node.node.partition("@")[0], "fake:2").output
        wait_until(
            lambda: set(engines(node)) == {"fake:2"}, timeout_s=WAIT_S, about="the model that is not pinned ends"
        )
        assert engines(node)["fake:2"].pinned
        line = next(line for line in models().output.splitlines() if line.startswith("fake:2"))
        assert f"  {node.node} (pinned)  " in line
        takers = {model["model"]: model["takers"] for model in json.loads(models("--json").output)["models"]}
        assert takers["fake:2"] == [node.node]
        assert takers["qwen3-1.7b"] == [], "its budget has no room for this one"
        assert takers["llama-3.3-70b"] == []
        assert "fake:2 ends" in models("unload", node.node, "fake:2").output
        wait_until(lambda: not engines(node), timeout_s=WAIT_S)
        again = models("unload", node.node, "fake:2")
        assert again.exit_code == 1
        assert "fake:2 is not loaded" in again.output
        refused = models("load", node.node, "fake:1:weights_mb=1000")
        assert "needs 1.37 GB and this worker may use 0.43 GB" in refused.output
        assert "neither in the catalogue" in models("load", node.node, "who/knows").output
        assert "neither in the catalogue" in models("unload", node.node, "who/knows").output
        assert "no worker is called 'nobody'" in models("load", "nobody", "fake:1").output

    def test_the_list(self, models: Callable[..., Result], redis_client: redis.Redis, bundled_model: Path) -> None:
        """Every model of the catalogue, with its tier and what is on this disk; as one JSON object too."""
        lines = {line.split()[0]: line for line in models().output.splitlines()}
        assert "0.1 GB" in lines["smollm2-135m"]
        assert "–" in lines["llama-3.3-70b"]
        found = {model["model"]: model for model in json.loads(models("--json").output)["models"]}
        assert found["smollm2-135m"]["disk"] == "yes"
        assert found["qwen3-8b"] == {
            "model": "qwen3-8b",
            "tier": "7-13B",
            "source": "mlx-community/Qwen3-8B-4bit",
            "disk": "no",
            "bytes": None,
            "workers": {},
            "fits_here": found["qwen3-8b"]["fits_here"],
            "takers": [],
        }
        title, first = models().output.splitlines()[:2]
        assert re.split(r"  +", title) == ["model", "tier", "fits here", "on this disk", "workers", "source"]
        assert re.split(r"  +", first)[:3] == ["smollm2-135m", "<3B", "yes"]
        assert found["llama-3.3-70b"]["fits_here"] is False

    def test_remove(
        self, models: Callable[..., Result], redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A hub model's folder is gone, with its size said; what is not here, loaded here, or somebody's own stays."""
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
        repository = tmp_path / "models--mlx-community--tiny-1B"
        (repository / "blobs").mkdir(parents=True)
        (repository / "blobs" / "weights").write_bytes(b"x" * 3_000_000)
        assert "loaded on one@" in refused_while_loaded(models, redis_url, "mlx-community/tiny-1B")
        asked = models("remove", "mlx-community/tiny-1B")
        assert (asked.exit_code, repository.is_dir()) == (1, True)
        assert f"Remove 3 MB in {repository}?" in asked.output
        removed = models("remove", "-f", "mlx-community/tiny-1B")
        assert removed.output == f"mlx-community/tiny-1B is removed: 3 MB in {repository}\n"
        assert not list(tmp_path.iterdir())
        again = models("remove", "-f", "mlx-community/tiny-1B")
        assert (again.exit_code, "is not on this machine" in again.output) == (1, True)
        assert "neither in the catalogue" in models("remove", "who/knows").output
        assert "fake:1 has no files" in models("remove", "fake:1").output

    def test_pull(
        self, models: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundled_model: Path
    ) -> None:
        """A model is fetched with a line for each tenth where there is no terminal; what need not be is not."""
        folder = make_tiny_model(tmp_path / "tiny", hidden_size=512)
        with HubServer({"mlx-community/tiny-1B": folder}) as hub:
            hub.pause_s = 0.01
            monkeypatch.setenv("HF_ENDPOINT", hub.url)
            monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
            monkeypatch.delenv("HF_HUB_OFFLINE")
            result = models("pull", "mlx-community/tiny-1B")
            assert result.exit_code == 0, result.output
            assert "mlx-community/tiny-1B is here" in result.output
            assert "GB" in result.output
            assert fetched_snapshot("mlx-community/tiny-1B") is not None
            hub.folders.clear()
            assert "is unknown to the hub" in models("pull", "mlx-community/other-1B").output
        assert "smollm2-135m is here already" in models("pull", "smollm2-135m").output
        assert "neither in the catalogue" in models("pull", "who/knows").output

    def test_pull_on_a_terminal(self, tmp_path: Path) -> None:
        """A person sees a bar; Ctrl-C ends it with one line, and the fetched part is kept."""
        folder = make_tiny_model(tmp_path / "tiny", hidden_size=512)
        with HubServer({"mlx-community/tiny-1B": folder}) as hub:
            hub.pause_s = 0.2
            env = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
            seen, status = on_terminal(["models", "pull", "mlx-community/tiny-1B"], env, until="GB")
        assert "mlx-community/tiny-1B" in seen
        assert "stopped; the fetched part is kept, and the next pull continues it" in seen
        assert "Traceback" not in seen
        assert status == 1


def on_terminal(args: list[str], env: dict[str, str], until: str) -> tuple[str, int]:
    """What a command shows on a terminal until this is seen and Ctrl-C typed, and its exit status."""
    own, theirs = pty.openpty()
    command = [sys.executable, "-m", "celery", "-A", "tasks", *args]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", **env}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        seen, deadline = "", time.monotonic() + WAIT_S
        try:
            while until not in seen:
                part = _read(own)
                assert part, seen
                assert time.monotonic() < deadline, seen
                seen += part
            process.send_signal(signal.SIGINT)
            while part := _read(own):
                seen += part
            return seen, process.wait(WAIT_S)
        finally:
            process.kill()
            os.close(own)


def _read(terminal: int) -> str:
    try:
        return os.read(terminal, 65536).decode(errors="replace")
    except OSError:  # the other end is closed
        return ""


class TestHub:
    def test_a_model_is_fetched_before_its_requests_are_claimed(
        self, generate: GenerateTask, worker: StartWorker, redis_client: redis.Redis, tmp_path: Path
    ) -> None:
        """The first request of a hub model has it fetched, which the record shows; other models are served meanwhile."""
        folder = make_tiny_model(tmp_path / "tiny")
        model = "mlx-community/tiny-1B"
        with HubServer({model: folder}) as hub:
            # A minute, unless it is told to go on.
            hub.pause_s = 60.0 * BLOCK_BYTES / (folder / "model.safetensors").stat().st_size
            env = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
            node = worker(env={**QUICK, **env})
            results = [generate.delay(prompt="hello", model=model, max_tokens=5) for _ in range(3)]
            wait_until(
                lambda: model in engines(node) and engines(node)[model].state == "downloading",
                timeout_s=WAIT_S,
                about="a download in the record",
            )
            assert not redis_client.exists(*(keys.stream(result.id) for result in results))
            assert generate.delay(prompt="x", model="fake:1", max_tokens=5).get(timeout=WAIT_S)["text"]
            hub.pause_s = 0.0
            answers = [result.get(timeout=WAIT_S) for result in results]
            assert all(answer["finish_reason"] in ("stop", "length") for answer in answers)
            wait_until(
                lambda: getattr(engines(node).get(model), "state", "") == "ready", about="a record of the engine"
            )
            assert engines(node)[model].revision == fetched_name(tmp_path / "home")

    def test_one_that_cannot_be_fetched(self, generate: GenerateTask, worker: StartWorker, tmp_path: Path) -> None:
        """A hub that hangs ends the requests in the time of the settings; one that does not know the model at once."""
        with HubServer({}) as hub:
            env = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
            worker(env={**QUICK, **env, "CELERY_MLX_DOWNLOAD_STALL_S": "8"})
            with pytest.raises(ModelLoadFailed, match="is unknown to the hub"):
                generate.delay(prompt="x", model="mlx-community/none-1B", max_tokens=5).get(timeout=WAIT_S)
            hub.hanging = True
            with pytest.raises(ModelLoadFailed, match="came from the hub for 8 s: the fetched part is kept"):
                generate.delay(prompt="x", model="mlx-community/hangs-1B", max_tokens=5).get(timeout=WAIT_S)

    def test_what_may_go_wrong(self, generate: GenerateTask, worker: StartWorker, tmp_path: Path) -> None:
        """Whatever is wrong with a hub's model is one clear error of the request's; the worker serves on."""
        folder = make_tiny_model(tmp_path / "tiny")
        faults: dict[str, tuple[dict[str, Any], str]] = {
            "refused": ({"token": "secret"}, r"is refused by the hub \(HTTP 401\): .* set HF_TOKEN"),
            "corrupt": ({"corrupt": True}, "came with the hash .* Try again"),
            "cut": ({"cuts": 1000}, "the fetched part is kept, try again"),
            "huge": ({"pretended_bytes": 10**16}, "GB more on the disk, .* make room, or set HF_HOME to a larger disk"),
            "broken": ({"status": 500}, "the hub cannot be reached|HTTP 500"),
        }
        names = {fault: f"mlx-community/{fault}-1B" for fault in faults}
        with HubServer(dict.fromkeys(names.values(), folder)) as hub:
            env = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
            node = worker(env={**QUICK, **env})
            for fault, (changes, message) in faults.items():
                before = {name: getattr(hub, name) for name in changes}
                vars(hub).update(changes)
                with pytest.raises(ModelLoadFailed, match=message) as caught:
                    generate.delay(prompt="x", model=names[fault], max_tokens=5).get(timeout=WAIT_S)
                vars(hub).update(before)
                assert names[fault] in str(caught.value)
                assert "\n" not in str(caught.value)
            assert generate.delay(prompt="x", model="fake:1", max_tokens=5).get(timeout=WAIT_S)["text"]
        assert "Traceback" not in node.log()


def fetched_name(home: Path) -> str:
    """The commit of the one snapshot in this cache."""
    return next(home.glob("hub/models--*/snapshots/*")).name
