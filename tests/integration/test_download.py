"""Models fetched from the hub, by the real client in a real process, from a server that speaks the hub's protocol."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from benchmarks.parts.tiny_model import make_tiny_model
from tasks.errors import ModelLoadFailed
from tasks.worker.attempts.publisher import Publisher
from tasks.worker.engines.download import Download
from tests.engines import engines_with
from tests.hub_server import BLOCK_BYTES, COMMIT, HubServer
from tests.support import has_ended, wait_until
from worker_config.hub import fetched_snapshot, repository_folder
from worker_config.model_entry import ModelEntry
from worker_config.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tasks.journal.writer import Journal

MODEL = "acme/tiny"
ENTRY = ModelEntry(name="tiny", kind="hub", source=MODEL)
WEIGHTS = "model-00001-of-00002.safetensors"
WAIT_S = 120.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository: two large files, small ones, and one that nobody needs."""
    folder = tmp_path / "repository"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors.index.json"):
        (folder / name).write_text(f'{{"file": "{name}"}}')
    (folder / WEIGHTS).write_bytes(os.urandom(20 * BLOCK_BYTES))
    (folder / WEIGHTS.replace("1-of", "2-of")).write_bytes(os.urandom(2 * BLOCK_BYTES))
    (folder / "original.gguf").write_bytes(b"not for mlx-lm")
    return folder


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """The server, with an empty cache of the client's."""
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_HUB_CACHE", "HF_HUB_DISABLE_XET"):
        monkeypatch.delenv(name, raising=False)
    with HubServer({MODEL: folder}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        yield server


@pytest.fixture
def fetch() -> Iterator[Callable[..., Download]]:
    """Starts downloads; those that are left are ended after the test."""
    started: list[Download] = []

    def fetch(entry: ModelEntry = ENTRY, *, refresh: bool = False, **settings: Any) -> Download:
        started.append(Download(entry, Settings(**settings), refresh=refresh))
        started[-1].start()
        return started[-1]

    yield fetch
    for download in started:
        download.stop()


def finish(download: Download) -> Path:
    """The folder that a download leads to."""
    assert download.wait(WAIT_S)
    assert download.error is None, download.error
    assert download.source is not None
    return Path(download.source.path)


def error_of(download: Download) -> str:
    """How a download fails."""
    assert download.wait(WAIT_S)
    assert isinstance(download.error, ModelLoadFailed)
    assert fetched_snapshot(MODEL) is None
    return str(download.error)


def blobs() -> dict[str, int]:
    """What lies where the client keeps contents, with its size."""
    found = {}
    for path in (repository_folder(MODEL) / "blobs").glob("*"):
        with suppress(FileNotFoundError):  # it has just got its name
            found[path.name] = path.stat().st_size
    return found


class TestFetching:
    def test_all_that_mlx_lm_needs(self, hub: HubServer, fetch: Callable[..., Download], folder: Path) -> None:
        """The model is whole and in the client's own layout; what is not needed is not fetched, and nothing is left over."""
        assert fetched_snapshot(MODEL) is None
        download = fetch()
        snapshot = finish(download)
        expected = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".gguf"}
        assert {path.name: path.read_bytes() for path in snapshot.iterdir()} == expected
        assert snapshot.name == COMMIT
        assert download.source is not None
        assert download.source.revision == COMMIT
        assert fetched_snapshot(MODEL) == snapshot
        assert not [name for name in blobs() if name.startswith(".")]

    def test_what_is_here_is_not_asked_for(self, hub: HubServer, fetch: Callable[..., Download]) -> None:
        """A second time the hub is not even asked; with ``refresh`` it is, and sends no weights again."""
        snapshot = finish(fetch())
        asked = len(hub.requests)
        assert finish(fetch()) == snapshot
        assert len(hub.requests) == asked
        assert finish(fetch(refresh=True)) == snapshot
        assert len(hub.requests) > asked
        assert len(hub.downloads()) == 2

    def test_the_model_s_own_revision(self, hub: HubServer, fetch: Callable[..., Download]) -> None:
        """A catalogue may name a commit; a revision that does not exist is an error that says so."""
        finish(fetch(ModelEntry(name="tiny", kind="hub", source=MODEL, revision=COMMIT)))
        wrong = fetch(ModelEntry(name="tiny", kind="hub", source=MODEL, revision="nowhere"))
        assert wrong.wait(WAIT_S)
        assert f"model {MODEL}@nowhere has no such revision" in str(wrong.error)

    def test_the_token_goes_to_the_hub_alone(
        self, hub: HubServer, fetch: Callable[..., Download], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """HF_TOKEN opens a private repository, and is not shown to the host that its files are on."""
        hub.token = "secret"
        monkeypatch.setenv("HF_TOKEN", "secret")
        finish(fetch())
        assert len(hub.downloads()) == 2
        assert hub.leaked == []

    def test_progress(self, hub: HubServer, fetch: Callable[..., Download]) -> None:
        """How far it is grows from nothing to all, and can be read meanwhile."""
        hub.pause_s = 0.3
        download = fetch()
        seen: list[float] = []

        def look() -> bool:
            if download.fraction is not None and download.fraction not in seen:
                seen.append(download.fraction)
            return download.done

        wait_until(look, timeout_s=WAIT_S)
        assert len(seen) > 3
        assert seen == sorted(seen)
        assert seen[-1] == 1.0
        assert "GB" in download.about

    def test_one_at_a_time(self, hub: HubServer, fetch: Callable[..., Download]) -> None:
        """Of two that fetch the same model at once one works and the other waits, and nothing is fetched twice."""
        hub.pause_s = 2.0
        first, second = fetch(), fetch()
        wait_until(lambda: "waiting for another process" in first.about + second.about, timeout_s=WAIT_S)
        hub.pause_s = 0.0
        assert finish(first) == finish(second)
        assert len(hub.downloads()) == 2


class TestGoingOn:
    def test_after_a_kill(self, hub: HubServer, fetch: Callable[..., Download], folder: Path) -> None:
        """A download that was killed in the middle of a file goes on there, and the file is right."""
        hub.pause_s = 2.0
        first = fetch()
        part = f".celery-mlx-{_sha256_of(folder / WEIGHTS)}.part"
        wait_until(lambda: blobs().get(part, 0) >= 3 * BLOCK_BYTES, timeout_s=WAIT_S)
        first.stop()
        assert first.error is not None
        kept = blobs()[part]
        hub.pause_s = 0.0
        hub.requests.clear()
        snapshot = finish(fetch())
        assert (WEIGHTS, f"bytes={kept}-") in hub.downloads()
        assert (snapshot / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()

    def test_after_a_dropped_connection(self, hub: HubServer, fetch: Callable[..., Download], folder: Path) -> None:
        """A connection that breaks off is made again, from where it was."""
        hub.cut_after, hub.cuts = 5 * BLOCK_BYTES, 1
        snapshot = finish(fetch())
        assert (snapshot / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()

    def test_it_ends_with_its_parent(self, hub: HubServer, tmp_path: Path) -> None:
        """The process does not outlive the worker that started it."""
        hub.pause_s = 1.0
        parent = subprocess.Popen(
            [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert parent.stdout is not None
        with parent, parent.stdout:
            pid = int(parent.stdout.readline())
            parent.send_signal(signal.SIGKILL)
            parent.wait()
        wait_until(lambda: has_ended(pid))


PARENT = """
import time
from tasks.worker.engines.download import Download
from worker_config.model_entry import ModelEntry
from worker_config.settings import Settings
download = Download(ModelEntry(name="tiny", kind="hub", source="acme/tiny"), Settings())
download.start()
print(download.pid, flush=True)
time.sleep(600)
"""


def _sha256_of(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


class TestOffline:
    @pytest.fixture(autouse=True)
    def whole(self, hub: HubServer, tmp_path: Path) -> Path:
        """The hub has a model that mlx-lm loads."""
        hub.folders[MODEL] = make_tiny_model(tmp_path / "whole")
        return hub.folders[MODEL]

    def test_what_is_here_is_used(
        self, hub: HubServer, fetch: Callable[..., Download], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Under HF_HUB_OFFLINE a model that is here is found, even one that another program fetched; the hub is not asked."""
        snapshot = finish(fetch())
        for mark in repository_folder(MODEL).glob(".celery-mlx-*"):
            mark.unlink()
        hub.requests.clear()
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        assert finish(fetch()) == snapshot
        assert hub.requests == []

    def test_what_is_here_in_part(self, fetch: Callable[..., Download], monkeypatch: pytest.MonkeyPatch) -> None:
        """A model that another program fetched in part is an error that names the missing part."""
        snapshot = finish(fetch())
        (snapshot / "tokenizer.json").unlink()
        forget_listing()
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        assert f"{snapshot}: has no tokenizer" in error_of(fetch())

    def test_what_is_not_here(
        self, hub: HubServer, fetch: Callable[..., Download], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is not here is an error that names the setting; the hub is not asked."""
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        assert "the hub may not be asked (HF_HUB_OFFLINE)" in error_of(fetch())
        assert hub.requests == []

    def test_a_hub_that_is_away(self, hub: HubServer, fetch: Callable[..., Download]) -> None:
        """If the hub answers nothing of use, what is here is used, whoever fetched it; what is not is an error."""
        snapshot = finish(fetch())
        hub.status = 503
        assert finish(fetch(refresh=True)) == snapshot
        next(repository_folder(MODEL).glob(".celery-mlx-*")).unlink()
        assert finish(fetch()) == snapshot


#: The hub's own client fills its cache; ``hf download`` does the same.
FILL = "import sys; from huggingface_hub import snapshot_download; print(snapshot_download(sys.argv[1]))"


def as_plain_user(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program that cannot write where the permissions forbid it; root can, unless it gives that right up."""
    plain = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []
    reading, writing = os.pipe()  # a process that fetches a model ends with its standard input
    try:
        return subprocess.run(
            [*plain, sys.executable, *command], stdin=reading, capture_output=True, text=True, timeout=120, check=False
        )
    finally:
        os.close(reading)
        os.close(writing)


def last_line(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The last message of a process that fetches a model."""
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def forget_listing() -> None:
    """Leave what every version of the hub's client has in its cache: this one keeps the hub's list of files, too."""
    for path in repository_folder(MODEL).iterdir():
        if path.name not in ("blobs", "refs", "snapshots"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Take every right to write away from a folder and all that is in it."""
    paths = [path for path in (folder, *folder.rglob("*")) if not path.is_symlink()]
    for path in paths:
        path.chmod(path.stat().st_mode & ~0o222)
    yield
    for path in paths:
        path.chmod(path.stat().st_mode | 0o200)


@pytest.mark.skipif(os.getuid() == 0 and shutil.which("setpriv") is None, reason="root writes everywhere")
class TestReadOnly:
    """A cache that is mounted read-only, or that belongs to another user."""

    FETCH = ("-c", "from tasks.engine.files.download import main; main()", MODEL)

    @pytest.mark.parametrize("offline", ["0", "1"])
    def test_a_whole_model(self, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: str) -> None:
        """A model that the hub's own client has fetched is used, with the hub away or not to be asked."""
        hub.folders[MODEL] = make_tiny_model(tmp_path / "whole")
        filled = as_plain_user("-c", FILL, MODEL)
        assert filled.returncode == 0, filled.stderr
        monkeypatch.setenv("HF_HUB_OFFLINE", offline)
        hub.status = 503
        with read_only(repository_folder(MODEL)):
            done = as_plain_user(*self.FETCH)
        assert last_line(done) == {"folder": filled.stdout.strip()}
        assert done.stderr == ""

    def test_a_model_in_part(self, hub: HubServer, tmp_path: Path) -> None:
        """What is missing cannot be fetched, and the error says both, with the folder and the remedy."""
        hub.folders[MODEL] = make_tiny_model(tmp_path / "whole")
        snapshot = Path(as_plain_user("-c", FILL, MODEL).stdout.strip())
        (snapshot / "model.safetensors").unlink()
        forget_listing()
        with read_only(repository_folder(MODEL)):
            error = last_line(as_plain_user(*self.FETCH))["error"]
        assert f"{snapshot}: has no weights" in error
        assert f"and it cannot be fetched: {repository_folder(MODEL)}: Permission denied: let this user" in error

    def test_no_model(self, hub: HubServer, tmp_path: Path) -> None:
        """Without the model the error says so, and which folder cannot be written."""
        (tmp_path / "home" / "hub").mkdir(parents=True)
        with read_only(tmp_path / "home"):
            error = last_line(as_plain_user(*self.FETCH))["error"]
        assert error.startswith(f"model {MODEL} is not on this machine; and it cannot be fetched: ")
        assert "Permission denied: let this user read and write the hub's cache, or set HF_HOME" in error
        assert hub.downloads() == []

    def test_another_user_s_lock(self, hub: HubServer) -> None:
        """In a folder that several users share, one user's lock does not shut out the next."""
        folder = repository_folder(MODEL)
        folder.mkdir(parents=True)
        (folder / ".celery-mlx.lock").touch(mode=0o444)
        assert "folder" in last_line(as_plain_user(*self.FETCH))
        assert len(hub.downloads()) == 2


CLIENT_FETCHES = """
import json
from tasks.engine.files.download import fetch
seen = []
fetch("acme/tiny", None, lambda fraction, about: seen.append(fraction), http_most_bytes=0)
print(json.dumps(seen))
"""


def test_progress_of_what_the_client_fetches(hub: HubServer, folder: Path) -> None:
    """Files that are so large that the hub's client has to fetch them count while they come, so they are no stalled download."""
    (folder / WEIGHTS).write_bytes(bytes(31 << 20))  # the client receives 10 MB at a time
    hub.pause_s = 0.003
    done = as_plain_user("-c", CLIENT_FETCHES)
    assert done.returncode == 0, done.stderr
    fractions = [fraction for fraction in json.loads(done.stdout.splitlines()[-1]) if fraction is not None]
    assert len({fraction for fraction in fractions if 0.1 < fraction < 1}) > 1
    assert fractions == sorted(fractions)


class TestFailing:
    """One clear error for each."""

    def test_it_is_unknown(self, hub: HubServer, fetch: Callable[..., Download]) -> None:
        """A name that the hub does not know."""
        hub.folders.clear()
        assert f"model {MODEL} is unknown to the hub: check the name" in error_of(fetch())

    def test_it_is_refused(self, hub: HubServer, fetch: Callable[..., Download]) -> None:
        """401, because there is no token."""
        hub.token = "secret"
        assert f"model {MODEL} is refused by the hub (HTTP 401)" in error_of(fetch())

    def test_it_is_gated(self, hub: HubServer, fetch: Callable[..., Download]) -> None:
        """A model whose owner has to permit it."""
        hub.gated.add(MODEL)
        assert "accept its terms on the hub" in error_of(fetch())

    def test_the_hub_hangs(self, hub: HubServer, fetch: Callable[..., Download]) -> None:
        """A hub that takes requests and answers nothing ends a download in its time, not in the client's."""
        hub.hanging = True
        error = error_of(fetch(download_stall_s=1.5))
        assert f"nothing of model {MODEL} came from the hub for 1.5 s" in error

    def test_it_takes_too_long(self, hub: HubServer, fetch: Callable[..., Download], folder: Path) -> None:
        """A download that goes on and on ends in its time; the fetched part is kept."""
        hub.pause_s = 2.0
        for limit_s in (6, 24, 96):  # how much of it the start takes depends on what else the machine does
            error = error_of(fetch(download_timeout_s=float(limit_s)))
            assert f"was not fetched within {limit_s} s: the fetched part is kept" in error
            if any(name.endswith(".part") for name in blobs()):
                return
        pytest.fail("nothing was kept")

    def test_it_is_cut_off(self, hub: HubServer, fetch: Callable[..., Download]) -> None:
        """A server that breaks off again and again without ever sending more."""
        hub.cut_after, hub.cuts = 0, 1000
        error = error_of(fetch())
        assert "the fetched part is kept, try again" in error
        assert "Traceback" not in error

    def test_its_hash_is_wrong(self, hub: HubServer, fetch: Callable[..., Download]) -> None:
        """Weights that are not what the hub says they are do not stay."""
        hub.corrupt = True
        assert "came with the hash" in error_of(fetch())
        assert not [name for name in blobs() if name.endswith(".part")]
        hub.corrupt = False
        finish(fetch())

    def test_the_disk_is_too_small(self, hub: HubServer, fetch: Callable[..., Download]) -> None:
        """A model larger than the disk is refused before anything is fetched."""
        hub.pretended_bytes = 10**16
        error = error_of(fetch())
        assert "needs 20000000.00 GB more on the disk" in error
        assert "make room, or set HF_HOME to a larger disk" in error
        assert hub.downloads() == []

    def test_there_is_nothing_to_load(self, hub: HubServer, fetch: Callable[..., Download], folder: Path) -> None:
        """A repository without anything that mlx-lm reads."""
        for path in folder.iterdir():
            path.unlink()
        (folder / "original.gguf").write_bytes(b"x")
        assert "has no files that mlx-lm could load" in error_of(fetch())

    def test_a_name_that_is_none(self, hub: HubServer, fetch: Callable[..., Download]) -> None:
        """What is no hub id is not asked for."""
        download = fetch(ModelEntry(name="odd", kind="hub", source="acme/..tiny"))
        assert download.wait(WAIT_S)
        assert "is not a hub id" in str(download.error)

    def test_the_process_dies(self, hub: HubServer, fetch: Callable[..., Download]) -> None:
        """Whatever kills the process, there is an error."""
        hub.pause_s = 1.0
        download = fetch()
        assert download.pid is not None
        os.kill(download.pid, signal.SIGKILL)
        assert "was ended by SIGKILL" in error_of(download)

    def test_a_request_that_waits_has_it_fetched_again(self, hub: HubServer, folder: Path) -> None:
        """A signal that ends a worker's download says nothing of the model: it goes on where it was, for the same request."""
        make_tiny_model(folder)
        (folder / WEIGHTS).unlink()
        (folder / "model.safetensors.index.json").unlink()
        (folder / WEIGHTS.replace("1-of", "2-of")).unlink()
        hub.pause_s = 2.0
        engines = engines_with(Publisher(cast("Journal", None)))
        with closing(engines), ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(engines.acquire, replace(ENTRY, parameters_b=0.001))
            wait_until(lambda: waiting.done() or any(size for size in blobs().values()), timeout_s=WAIT_S)
            (state,) = engines.states()
            assert (state.state, waiting.done()) == ("downloading", False)
            assert state.pid is not None
            os.kill(state.pid, signal.SIGKILL)
            hub.pause_s = 0.0
            assert waiting.result(WAIT_S).ready is not None
