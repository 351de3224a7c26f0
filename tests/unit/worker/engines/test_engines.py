"""The engines of a worker, with real processes of the fake engine: loaded, shared, watched, replaced and ended."""

from __future__ import annotations

import errno
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
import traceback
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest

from benchmarks.parts.tiny_model import make_tiny_model
from tasks.broker.queues.aside import Aside
from tasks.engine.fake import fake_text
from tasks.errors import EngineFailed, GenerationError, ModelLoadFailed, OutOfMemory
from tasks.journal.claim_answer import ClaimAnswer
from tasks.messages.engine import Submit
from tasks.messages.journal import Claim, End, Entry, Error, Release, Token
from tasks.models.footprint import expected
from tasks.models.key import key_of
from tasks.worker.attempts.attempt import Attempt, Fenced
from tasks.worker.attempts.job import Job
from tasks.worker.engines import process
from tasks.worker.engines.backlog import Backlog
from tasks.worker.engines.changes import Changes
from tasks.worker.engines.failures import MOST_LOAD_CRASHES, Failures
from tasks.worker.engines.process import EngineProcess
from tasks.worker.engines.waiting import MOVES_PER_S, WAIT_S, Interrupted, SetAside
from tasks.worker.profile.installation import Installation
from tests.engines import Deaf, NoPeers, engines_with
from tests.support import wait_until
from worker_config.model_entry import ModelEntry
from worker_config.settings import Settings
from worker_config.tiers import TIERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from tasks.worker.attempts.publisher import Publisher
    from tasks.worker.engines.backlog import Waiting
    from tasks.worker.engines.engine import Engine
    from tasks.worker.engines.engines import Engines
    from tasks.worker.engines.peers import Peers

END_S = 90.0
#: What :func:`make` hands on to :func:`tests.engines.engines_with`; all else are settings.
PARTS = {"backlog", "changes"}


class Notes:
    """In the publisher's place: notes the entries, and finishes an attempt at once."""

    def __init__(self) -> None:
        self.entries: dict[str, list[Entry]] = {}

    def put(self, items: Iterable[tuple[Attempt, Entry]]) -> None:
        for attempt, entry in items:
            self.entries.setdefault(attempt.task_id, []).append(entry)
            if isinstance(entry, End | Error | Release):
                attempt.finish(entry)

    write = put


class WatchedBacklog(Backlog):
    """Counts the looks of the watch over engines, which begins each of them by asking what waits."""

    def __init__(
        self, read: Callable[[], list[Aside]] = list, queues: Iterable[str] = (), peers: Peers | None = None
    ) -> None:
        self.changes = Changes()
        self._looks = 0
        super().__init__(read, queues, peers or NoPeers(), self.changes)

    def waiting(self) -> list[Waiting]:
        self._looks += threading.current_thread().name == "engines"
        return super().waiting()

    def watched(self) -> None:
        """Wait until the watch has looked twice, from beginning to end."""
        for looks in range(self._looks + 1, self._looks + 4):
            with self.changes:
                self.changes.notify()
            wait_until(partial(self._has_looked, looks))

    def _has_looked(self, looks: int) -> bool:
        return self._looks >= looks


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def make(notes: Notes) -> Iterator[Callable[..., Engines]]:
    """Makes engines under a budget, and ends them after the test."""
    made: list[Engines] = []

    def make(budget_bytes: int = 10**9, slots: int = 4, failures: Failures | None = None, **settings: Any) -> Engines:
        parts = {name: settings.pop(name) for name in PARTS & settings.keys()}
        engines = engines_with(
            cast("Publisher", notes),
            budget_bytes,
            slots=slots,
            failures=failures,
            settings=Settings(**settings),
            **parts,
        )
        made.append(engines)
        return engines

    yield make
    for engines in made:
        engines.close()


def fake(options: str = "0", **fields: Any) -> ModelEntry:
    """The entry of a fake model, of the smallest tier as the catalogue has it."""
    return ModelEntry(name=f"fake:{options}", kind="fake", source=options, tier=TIERS[0], **fields)


def submitted(engine: Engine, prompt: str, *, max_tokens: int = 3, task_id: str = "", **fields: Any) -> Attempt:
    """Send a request to an engine."""
    assert engine.ready is not None
    claim = ClaimAnswer(
        kind="claimed",
        attempt=1,
        crashes=0,
        entries=[Claim(attempt=1, worker="a#1")],
        items=[],
        owner="a#1",
        nonce="n",
        queued_ms=None,
    )
    attempt = Attempt(task_id or prompt, claim, engine.entry.name)
    engine.submit(
        attempt, Submit(task_id=attempt.task_id, messages=None, prompt=prompt, max_tokens=max_tokens, **fields)
    )
    return attempt


def failing(*_: Any) -> Any:
    """In place of something that has a fault."""
    raise KeyError("fault")


def outcome_of(attempt: Attempt) -> Any:
    """How an attempt came out."""
    wait_until(lambda: attempt.outcome, timeout_s=END_S)
    return attempt.outcome


def in_thread(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Run a call on a thread of its own; what it returned or raised comes into the list."""
    answers: list[Any] = []

    def run() -> None:
        try:
            answers.append(call())
        except (GenerationError, Interrupted, SetAside) as error:
            answers.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, answers


class TestLoading:
    def test_on_the_first_request(self, make: Callable[..., Engines], notes: Notes) -> None:
        """Nothing is loaded before it is asked for; then requests share one process."""
        engines = make()
        assert engines.states() == []
        first = engines.acquire(fake())
        assert engines.acquire(fake()) is first
        attempts = [submitted(first, "one"), submitted(first, "two")]
        assert all(isinstance(outcome_of(attempt), End) for attempt in attempts)
        assert [attempt.text for attempt in attempts] == [fake_text("one", None, 3), fake_text("two", None, 3)]
        assert engines.pids() == [first.process.pid]
        (state,) = engines.states()
        assert (state.model, state.state, state.revision, state.running) == ("fake:0", "ready", "fake", 0)
        assert [entry.index for entry in notes.entries["one"] if isinstance(entry, Token)] == [0, 1, 2]
        assert [step.step for step in engines.last_steps()] == [state.steps]

    def test_many_wait_for_one(self, make: Callable[..., Engines]) -> None:
        """Requests that come while the model loads wait for the same process."""
        engines = make()
        waiting = [in_thread(lambda: engines.acquire(fake("0:load_s=2"))) for _ in range(4)]
        wait_until(lambda: engines.loading)
        for thread, _ in waiting:
            thread.join(END_S)
        assert len({id(answers[0]) for _, answers in waiting}) == 1
        assert waiting[0][1][0].reservation.users == 4
        assert not engines.loading

    def test_two_models_have_two_processes(self, make: Callable[..., Engines]) -> None:
        """Each model has an engine of its own."""
        engines = make()
        assert engines.acquire(fake("0")).process.pid != engines.acquire(fake("1")).process.pid

    def test_waiting_may_be_stopped(self, make: Callable[..., Engines]) -> None:
        """A request that is cancelled while its model loads does not wait for it."""
        engines = make()
        job = Job("t1", "tier-under-3B")
        thread, answers = in_thread(lambda: engines.acquire(fake("0:load_s=60"), job))
        wait_until(lambda: engines.loading)
        job.stop("cancelled")
        thread.join(END_S)
        assert isinstance(answers[0], Interrupted)

    def test_in_advance(self, make: Callable[..., Engines]) -> None:
        """A model that was named in the settings is loaded before its first request, and is pinned."""
        engines = make()
        engines.keep(fake())
        assert engines.loading
        wait_until(lambda: [state.state for state in engines.states()] == ["ready"])
        assert engines.states()[0].pinned


class TestFailing:
    def test_the_reason_is_told(self, make: Callable[..., Engines], caplog: pytest.LogCaptureFixture) -> None:
        """Whoever waits for a model that cannot be loaded gets the reason; the record has it too."""
        engines = make()
        broken = fake("0:load_error=no weights")
        with pytest.raises(ModelLoadFailed, match="no weights"):
            engines.acquire(broken)
        (state,) = engines.states()
        assert (state.model, state.state) == (broken.name, "failed")
        assert "no weights" in state.reason
        assert "it is tried again in 2 s" in caplog.text

    def test_it_pauses(self, make: Callable[..., Engines]) -> None:
        """A failed model is not tried again at once: requests meanwhile fail with the same reason, without a process. The
        reason, which is stored with each result, does not grow with their number."""
        engines = make(failures=Failures(retry_first_s=3600.0))
        told = []
        for _ in range(5):
            with pytest.raises(ModelLoadFailed) as info:
                engines.acquire(fake("0:load_error=no weights"))
            told.append("".join(traceback.format_exception(info.value)))
        assert engines.loads == 1
        assert len({len(size) for size in told[1:]}) == 1
        assert engines.degraded() == ""

    def test_it_is_tried_again(self, make: Callable[..., Engines]) -> None:
        """After its pause the model is tried again; after three failures in a row the worker says so."""
        engines = make(failures=Failures(retry_first_s=0.2))

        def is_degraded() -> str:
            with pytest.raises(ModelLoadFailed):
                engines.acquire(fake("0:load_error=no weights"))
            return engines.degraded()

        wait_until(is_degraded, timeout_s=2 * END_S)
        assert engines.loads >= 2
        assert re.search(r"fake:0:load_error=no weights: failed to load \d+ times", engines.degraded())

    def test_others_are_served(self, make: Callable[..., Engines]) -> None:
        """A model that cannot be loaded is no other model's problem."""
        engines = make()
        with pytest.raises(ModelLoadFailed):
            engines.acquire(fake("0:load_error=no weights"))
        assert isinstance(outcome_of(submitted(engines.acquire(fake()), "hello")), End)

    def test_a_process_that_is_killed_while_it_loads(self, make: Callable[..., Engines]) -> None:
        """A signal says nothing of the model: its engine is started again, and who waits gets it."""
        engines = make()
        waiting = [in_thread(lambda: engines.acquire(fake("0:load_s=4"))) for _ in range(3)]
        (killed,) = wait_until(engines.pids)
        os.kill(killed, signal.SIGKILL)
        for thread, answers in waiting:
            thread.join(END_S)
            assert answers[0].ready.pid != killed
        assert (engines.loads, engines.restarts) == (2, 1)
        assert engines.degraded() == ""

    def test_a_process_that_loses_its_worker_while_it_loads(
        self, make: Callable[..., Engines], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its pipe is closed, so it ends with 0: that says nothing of the model, and it is started again."""
        started: list[EngineProcess] = []
        start = EngineProcess.start

        def start_noted(*args: Any, **options: Any) -> EngineProcess:
            started.append(start(*args, **options))
            return started[-1]

        monkeypatch.setattr(EngineProcess, "start", start_noted)
        engines = make()
        thread, answers = in_thread(lambda: engines.acquire(fake("0:load_s=4")))
        wait_until(lambda: started)[0]._pipe._link.shutdown(socket.SHUT_WR)
        thread.join(END_S)
        assert (started[0].exitcode, answers[0].ready.pid) == (0, started[1].pid)

    def test_a_process_that_is_killed_whenever_it_loads(self, make: Callable[..., Engines]) -> None:
        """After three such deaths in a row who waits gets an error that says how they came; the same request may work later."""
        engines = make(failures=Failures(retry_first_s=0.1))
        thread, answers = in_thread(lambda: engines.acquire(fake("0:load_s=60")))
        killed: set[int] = set()
        for _ in range(MOST_LOAD_CRASHES):
            (pid,) = wait_until(lambda: set(engines.pids()) - killed)
            killed.add(pid)
            os.kill(pid, signal.SIGKILL)
        thread.join(END_S)
        assert isinstance(answers[0], EngineFailed)
        assert "SIGKILL" in str(answers[0])
        assert engines.loads == MOST_LOAD_CRASHES

    def test_a_process_that_ends_by_itself_while_it_loads(self, make: Callable[..., Engines]) -> None:
        """An exit status without a reason is no accident from outside: the model has failed to load, without a second try."""
        engines = make()
        with pytest.raises(ModelLoadFailed, match="exited with code 3"):
            engines.acquire(fake("0:load_exit=3"))
        assert engines.loads == 1


class TestInstallation:
    """The code that engines are started from is replaced or removed: never a model's fault."""

    @pytest.fixture
    def told(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Why the worker had to leave, each time that it was told to."""
        told: list[str] = []
        monkeypatch.setattr(Deaf, "code_replaced", lambda _, why: told.append(why))
        return told

    def gives_back(self, engines: Engines, options: str, told: list[str]) -> str:
        """Two requests of a model are given back, and the worker is told once why."""
        for _ in range(2):
            with pytest.raises(Interrupted, match="outdated"):
                engines.acquire(fake(options))
        wait_until(lambda: told)
        (why,) = told
        assert not engines.degraded()
        assert not any(state.state == "failed" for state in engines.states())
        return why

    def test_our_own_is_removed(
        self, make: Callable[..., Engines], told: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Python finds no program to start."""
        engines = make()
        monkeypatch.setattr(process, "PACKAGE", "tasks.removed")
        assert "No module named 'tasks.removed'" in self.gives_back(engines, "0", told)
        assert engines.loads == 1

    def test_python_is_removed(
        self, make: Callable[..., Engines], told: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As where the environment is made anew."""
        engines = make()
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
        assert "/nowhere/python" in self.gives_back(engines, "0", told)

    def test_what_a_library_lacks_looks_like_a_broken_model(
        self, make: Callable[..., Engines], told: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """mlx-lm does not know a type of model whose module was removed. Where all of it is there, it is the model's fault."""
        engines = make()
        monkeypatch.setattr(Installation, "fault", lambda _: "mlx-lm lacks mlx_lm/models/llama.py")
        assert self.gives_back(engines, "0:load_error=unknown type", told) == "mlx-lm lacks mlx_lm/models/llama.py"
        monkeypatch.setattr(Installation, "fault", lambda _: "")
        with pytest.raises(ModelLoadFailed, match="unknown type"):
            make().acquire(fake("0:load_error=unknown type"))

    def test_no_room_for_a_process(self, make: Callable[..., Engines], monkeypatch: pytest.MonkeyPatch) -> None:
        """A machine that is out of processes may have some later: the load is tried again, as after a crash."""
        engines, start = make(), EngineProcess.start
        attempts: list[None] = []

        def first_refused(*arguments: Any) -> EngineProcess:
            attempts.append(None)
            if len(attempts) == 1:
                raise BlockingIOError(errno.EAGAIN, "no process left")
            return start(*arguments)

        monkeypatch.setattr(EngineProcess, "start", first_refused)
        assert isinstance(outcome_of(submitted(engines.acquire(fake()), "hello")), End)
        assert engines.loads == 2


def sized(options: str = "0", weights_mb: int = 8, **fields: Any) -> ModelEntry:
    """A fake model that takes memory, and counts against the budget."""
    return fake(f"{options}:weights_mb={weights_mb}", **fields)


FLOOR = expected(sized(), "cpu", Settings().prefill_step_tokens).floor_bytes
MIB = 1 << 20


def models(engines: Engines) -> set[str]:
    """The models that have an engine, or whose engine is ending."""
    return {state.model for state in engines.states()}


class TestBudget:
    def test_the_idle_make_room(self, make: Callable[..., Engines]) -> None:
        """A model that does not fit beside the others takes the place of the one that was unused for longest."""
        engines = make(budget_bytes=int(2.5 * FLOOR))
        oldest, newer = engines.acquire(sized("1")), engines.acquire(sized("2"))
        engines.release(newer)
        engines.release(oldest)
        newer.reservation.used_at = oldest.reservation.used_at + 0.1
        engines.acquire(sized("3"))
        assert models(engines) == {sized("2").name, sized("3").name}
        assert oldest.process.exitcode == 0

    def test_the_busy_are_waited_for(self, make: Callable[..., Engines]) -> None:
        """While the other model has work the new one waits; it is loaded as soon as the other is idle."""
        engines = make(budget_bytes=FLOOR)
        busy = engines.acquire(sized("1"))
        thread, answers = in_thread(lambda: engines.acquire(sized("2")))
        thread.join(3 * WAIT_S)
        assert answers == []
        assert models(engines) == {sized("1").name}
        engines.release(busy)
        thread.join(END_S)
        assert answers[0].entry == sized("2")
        assert models(engines) == {sized("2").name}

    def test_the_pinned_stay(self, make: Callable[..., Engines]) -> None:
        """A model that is to stay is never ended for another, which is told so with the numbers."""
        engines = make(budget_bytes=int(1.5 * FLOOR))
        engines.keep(sized("1"))
        engines.release(engines.acquire(sized("1")))
        with pytest.raises(OutOfMemory, match=r"needs 0.30 GB and this worker may use 0.45 GB, of which pinned models"):
            engines.acquire(sized("2"))
        assert models(engines) == {sized("1").name}

    def test_what_never_fits_is_refused(self, make: Callable[..., Engines]) -> None:
        """A model larger than the whole budget is an error at once, which says both sizes; to load it in advance is one too."""
        engines = make(budget_bytes=FLOOR)
        expect = r"needs 1.3\d GB and this worker may use 0.30 GB: send it to a larger machine"
        with pytest.raises(OutOfMemory, match=expect):
            engines.acquire(sized(weights_mb=1000))
        with pytest.raises(OutOfMemory, match=expect):
            engines.load(sized(weights_mb=1000))
        assert engines.states() == []

    def test_a_failed_model_gives_its_room_back(self, make: Callable[..., Engines]) -> None:
        """What a model that could not be loaded had reserved is free again."""
        engines = make(budget_bytes=FLOOR)
        with pytest.raises(ModelLoadFailed):
            engines.acquire(sized("0:load_error=no weights"))
        assert engines.acquire(sized("1")).ready

    def test_two_loads_at_once_never_overbook(self, make: Callable[..., Engines]) -> None:
        """Of three models that load at once two are given room, and the third gets it when one of them is done."""
        backlog = WatchedBacklog()
        engines = make(budget_bytes=int(2.5 * FLOOR), backlog=backlog, changes=backlog.changes)
        slow = [sized(f"{number}:load_s=0.3") for number in range(3)]
        waiting = {number: in_thread(partial(engines.acquire, entry)) for number, entry in enumerate(slow)}
        reserved: list[int] = []

        def loaded() -> list[Any]:
            states = engines.states()
            reserved.append(sum(state.reserved_bytes for state in states))
            return [answers[0] for _, answers in waiting.values() if answers]

        wait_until(lambda: len(loaded()) == 2, timeout_s=END_S)
        backlog.watched()
        assert len(loaded()) == 2
        engines.release(loaded()[0])
        wait_until(lambda: len(loaded()) == 3, timeout_s=END_S)
        assert max(reserved) <= 2.5 * FLOOR

    def test_what_is_left_over_is_shared(self, make: Callable[..., Engines]) -> None:
        """A model alone gets all that there is; when a second one comes both get half of what no model needs."""
        engines = make(budget_bytes=3 * FLOOR)
        first = engines.acquire(sized("1"))
        wait_until(lambda: first.reservation.target_bytes is None and first.reservation.held_bytes == 3 * FLOOR)
        second = engines.acquire(sized("2"))
        wait_until(
            lambda: abs(second.reservation.held_bytes - 1.5 * FLOOR) < MIB and second.reservation.target_bytes is None
        )
        assert abs(first.reservation.held_bytes - 1.5 * FLOOR) < MIB
        assert engines.loads == 2
        engines.release(second)
        assert engines.unload(key_of(sized("2")))
        wait_until(lambda: first.reservation.held_bytes == 3 * FLOOR)

    def test_the_first_request_has_the_share(self, make: Callable[..., Engines]) -> None:
        """An engine is told of its share before its first request comes, which may need more than the least."""
        engines = make(budget_bytes=4 * FLOOR)
        model = sized("1:context=200000")
        for number in range(5):
            engine = engines.acquire(model)
            long = submitted(engine, f"long {number}", max_tokens=100_000)
            wait_until(lambda long=long: long.ids or long.outcome)  # type: ignore[misc]
            assert long.outcome is None
            engine.stop(long, "cancelled")
            outcome_of(long)
            engines.release(engine)
            engines.unload(key_of(model))
            wait_until(lambda: not engines.states())

    def test_what_runs_keeps_its_share_until_it_ends(self, make: Callable[..., Engines]) -> None:
        """An engine whose running requests need its share gives it up when they have ended, and not before."""
        engines = make(budget_bytes=2 * FLOOR)
        first = engines.acquire(sized("5:context=200000"))
        wait_until(lambda: first.reservation.held_bytes == 2 * FLOOR and first.reservation.target_bytes is None)
        long = submitted(first, "long", max_tokens=100_000)
        wait_until(lambda: long.ids)
        thread, answers = in_thread(lambda: engines.acquire(sized("2")))
        thread.join(3 * WAIT_S)
        assert answers == []
        assert first.reservation.held_bytes == 2 * FLOOR
        first.stop(long, "cancelled")
        thread.join(END_S)
        assert answers[0].serves
        assert sum(state.reserved_bytes for state in engines.states()) <= 2 * FLOOR


class TestDying:
    def test_the_batch_s_requests_go_back(self, make: Callable[..., Engines], caplog: pytest.LogCaptureFixture) -> None:
        """An engine that dies releases its requests: as suspects those of its batch, as innocent those that waited."""
        engines = make(slots=1)
        engine = engines.acquire(fake("5"))
        killer = submitted(engine, "!crash@3", max_tokens=5)
        wait_until(lambda: killer.ids)
        waited = submitted(engine, "waited")
        assert outcome_of(killer) == Release(attempt=1, crashed=True)
        assert outcome_of(waited) == Release(attempt=1, crashed=False)
        assert killer.text == fake_text("!crash@3", None, 3)
        wait_until(lambda: "exited with code 70" in caplog.text)
        engines.release(engine)
        assert engines.acquire(fake("5")) is not engine

    def test_it_can_be_given_no_more(self, make: Callable[..., Engines]) -> None:
        """A request that comes for a dead engine goes back, without a crash to its account."""
        engines = make()
        engine = engines.acquire(fake())
        engine.process.kill()
        wait_until(lambda: engine.gone)
        assert outcome_of(submitted(engine, "late")) == Release(attempt=1, crashed=False)

    @pytest.mark.parametrize(
        ("reason", "expected"),
        [("cancelled", "cancelled"), ("soft_time_limit", "deadline"), ("time_limit", "deadline_exceeded")],
    )
    def test_what_it_was_to_stop_for_stands(self, make: Callable[..., Engines], reason: Any, expected: str) -> None:
        """A request that was being stopped when its engine died ends as it would have, and does not run again."""
        engine = make().acquire(fake("0"))
        attempt = submitted(engine, "!hang@2", max_tokens=5)
        wait_until(lambda: len(attempt.ids) == 2)
        engine.stop(attempt, reason, 1.0)
        engine.process.kill()
        outcome = outcome_of(attempt)
        assert expected in (getattr(outcome, "finish_reason", None), getattr(outcome, "code", None))

    def test_a_stalled_engine_is_replaced(self, make: Callable[..., Engines], caplog: pytest.LogCaptureFixture) -> None:
        """An engine that has work and makes no step is killed, and its requests go to a new one."""
        engines = make(stall_timeout_s=3.0)  # the new one has to make a step in this time on a busy machine
        engine = engines.acquire(fake())
        stuck = submitted(engine, "!hang@1")
        assert outcome_of(stuck) == Release(attempt=1, crashed=True)
        wait_until(lambda: "made no step for 3 s although it has work" in caplog.text)
        engines.release(engine)
        assert isinstance(outcome_of(submitted(engines.acquire(fake()), "hello")), End)

    def test_a_stopped_engine_is_replaced(self, make: Callable[..., Engines]) -> None:
        """An engine that reads nothing, with a prompt on its way that is larger than the pipe: who sends to it and who asks
        about it is answered, and the watch ends it."""
        engines = make(stall_timeout_s=5.0)  # what is asserted before has this time on a busy machine
        engine = engines.acquire(sized())
        os.kill(engine.process.pid, signal.SIGSTOP)
        stuck = [submitted(engine, "word " * 1_000_000, task_id=f"large {number}") for number in range(2)]
        engine.resize(10**9, 10**9)
        engine.stop(stuck[1], "cancelled")
        assert [state.state for state in engines.states()] == ["ready"]
        assert outcome_of(stuck[0]) == Release(attempt=1, crashed=True)  # the first in line
        outcome = outcome_of(stuck[1])
        assert isinstance(outcome, End)
        assert outcome.finish_reason == "cancelled"

    def test_who_is_too_slow_to_prepare_is_blamed(self, make: Callable[..., Engines]) -> None:
        """A prompt whose template or tokenising takes longer than a stall may: the engine is replaced, with a crash to the
        account of that request, so that it ends after three; who waited behind it is innocent."""
        engines = make(stall_timeout_s=3.0)  # on a busy machine an engine may take a second to begin with a prompt
        engine = engines.acquire(fake())
        slow, behind = submitted(engine, "!slow@60"), submitted(engine, "behind")
        assert outcome_of(slow) == Release(attempt=1, crashed=True)
        assert outcome_of(behind) == Release(attempt=1, crashed=False)

    def test_who_is_prepared_again_beside_others_is_blamed(self, make: Callable[..., Engines]) -> None:
        """An engine dies while others run and one is tokenised: the first time those that run count as suspects, the next
        time it does too; who was tokenised and waits for a place does not."""
        engines = make(slots=1)
        for again in (False, True):
            engine = engines.acquire(fake("20"))
            runs = submitted(engine, "runs", max_tokens=5_000)
            wait_until(lambda: runs.ids)  # noqa: B023 - called within the turn
            waits = submitted(engine, "waits", again=again)
            wait_until(lambda: engine.last is not None and engine.last.waiting == 1)  # noqa: B023
            slow = submitted(engine, "!slow@60", again=again)
            if again:
                wait_until(lambda: engine.attempts._preparing == {"!slow@60"})  # noqa: B023
            engine.process.kill()
            assert outcome_of(runs) == Release(attempt=1, crashed=True)
            assert outcome_of(waits) == Release(attempt=1, crashed=False)
            assert outcome_of(slow) == Release(attempt=1, crashed=again)
            engines.release(engine)

    def test_each_request_has_its_time_to_be_prepared(self, make: Callable[..., Engines]) -> None:
        """Suspects are prepared one after the other, before any step: each of them counts as progress."""
        engine = make().acquire(fake())
        submitted(engine, "!hang@0")
        for done in (False, True):
            engine.attempts.progress_at -= 1000
            engine.attempts.prepare("!hang@0", done=done)
            assert not engine.stalled(60.0)
        engine.attempts.progress_at -= 1000
        assert engine.stalled(60.0)

    def test_a_request_that_cannot_be_sent_is_an_error(self, make: Callable[..., Engines]) -> None:
        """It ends at once and is not waited for: the engine does not count as stalled."""
        engine = make().acquire(fake())
        unsendable = submitted(engine, "hello", chat_template_kwargs={"x": lambda: None})
        outcome = outcome_of(unsendable)
        assert isinstance(outcome, Error)
        assert outcome.code == "invalid_request"
        assert "cannot be sent to its engine" in outcome.message
        engine.attempts.progress_at -= 1000
        assert not engine.stalled(60.0)

    def test_a_request_that_was_lost_is_computed_no_further(self, make: Callable[..., Engines], notes: Notes) -> None:
        """An attempt that another worker took over leaves the batch, and the next attempt at the request hears nothing of it."""
        engine = make().acquire(fake("10"))
        lost = submitted(engine, "hello", max_tokens=5_000)
        wait_until(lambda: any(isinstance(item, Token) for item in notes.entries.get("hello", [])))
        lost.finish(Fenced())
        engine.forget(lost)
        again = submitted(engine, "hello", max_tokens=3)
        assert isinstance(outcome_of(again), End)
        assert (again.ids, again.text) == (again.ids[:3], fake_text("hello", None, 3))
        wait_until(lambda: engine.last is not None and engine.last.running == 0)
        engine.forget(again)
        engine.attempts.progress_at -= 1000
        assert not engine.stalled(60.0)

    def test_what_cannot_be_dealt_with_ends_the_engine_and_not_its_reader(
        self, make: Callable[..., Engines], caplog: pytest.LogCaptureFixture
    ) -> None:
        """A fault of ours while a step is read gives all requests of the engine back: nobody waits for a thread that has died."""
        engines = make()
        engine = engines.acquire(fake("10"))
        broken, beside = submitted(engine, "broken", max_tokens=5_000), submitted(engine, "beside", max_tokens=5_000)
        broken.take = failing  # type: ignore[assignment, method-assign]
        assert {type(outcome_of(broken)), type(outcome_of(beside))} == {Release}
        wait_until(lambda: "cannot be handled; the engine is ended" in caplog.text)
        assert isinstance(outcome_of(submitted(engines.acquire(fake("10")), "after")), End)

    def test_a_fault_of_who_is_told_does_no_harm(
        self, make: Callable[..., Engines], caplog: pytest.LogCaptureFixture
    ) -> None:
        """What a worker makes of a step is not the engine's business: a fault in it is logged, and the step counts."""
        engine = make().acquire(fake("10"))
        engine._on_step = failing
        assert isinstance(outcome_of(submitted(engine, "hello")), End)
        wait_until(lambda: "what follows from a message of engine" in caplog.text)

    def test_an_idle_engine_is_not_stalled(self, make: Callable[..., Engines]) -> None:
        """Neither an idle engine, nor one that has just been given work after a long pause, counts as stalled."""
        engines = make(stall_timeout_s=60.0)
        engine = engines.acquire(fake("10"))
        engine.attempts.progress_at -= 1000
        assert not engine.stalled(60.0)
        attempt = submitted(engine, "hello")
        assert not engine.stalled(60.0)
        assert isinstance(outcome_of(attempt), End)


class TestStopping:
    def test_within_a_step(self, make: Callable[..., Engines]) -> None:
        """A request that is to stop ends with what it has."""
        engine = make().acquire(fake("10"))
        attempt = submitted(engine, "hello", max_tokens=5000)
        wait_until(lambda: attempt.ids)
        engine.stop(attempt, "cancelled")
        outcome = outcome_of(attempt)
        assert isinstance(outcome, End)
        assert outcome.finish_reason == "cancelled"
        assert 0 < outcome.index < 5000

    def test_to_give_back(self, make: Callable[..., Engines]) -> None:
        """A request that is given back is released, not ended."""
        engine = make().acquire(fake("10"))
        attempt = submitted(engine, "hello", max_tokens=5000)
        wait_until(lambda: attempt.ids)
        engine.stop(attempt, "requeue")
        assert outcome_of(attempt) == Release(attempt=1, crashed=False)

    def test_a_dead_engine(self, make: Callable[..., Engines], caplog: pytest.LogCaptureFixture) -> None:
        """Stopping what was in a dead engine does nothing."""
        caplog.set_level(logging.DEBUG)
        engine = make().acquire(fake())
        attempt = submitted(engine, "hello")
        outcome_of(attempt)
        engine.process.kill()
        wait_until(lambda: engine.gone)
        engine.stop(attempt, "cancelled")
        assert "ended before request hello was aborted" in caplog.text


class TestIdling:
    def test_an_idle_engine_is_ended(self, make: Callable[..., Engines], caplog: pytest.LogCaptureFixture) -> None:
        """An engine that nobody has used for its time is ended, and a new request starts a new one."""
        caplog.set_level(logging.INFO)
        backlog = WatchedBacklog()
        engines = make(keep_alive_s=0.2, backlog=backlog, changes=backlog.changes)
        engine = engines.acquire(fake())
        wait_until(lambda: time.monotonic() - engine.reservation.used_at > 0.2)
        backlog.watched()
        assert engines.pids() == [engine.process.pid]  # it is in use, however idle it is
        engines.release(engine)
        wait_until(lambda: not engines.pids())
        assert engine.process.exitcode == 0
        wait_until(lambda: "without a request" in caplog.text)
        assert engines.acquire(fake()) is not engine

    def test_some_stay(self, make: Callable[..., Engines]) -> None:
        """A pinned model, a model of its own time, and everything where the time is 0, stays loaded."""
        engines = make(keep_alive_s=0.2)
        engines.keep(fake("1"))
        for entry in (fake("1"), fake("2", keep_alive_s=0), fake("3", keep_alive_s=3600)):
            engines.release(engines.acquire(entry))
        engines.release(engines.acquire(fake("4")))
        wait_until(lambda: "fake:4" not in {state.model for state in engines.states()})
        assert {state.model for state in engines.states()} == {"fake:1", "fake:2", "fake:3"}

    def test_a_request_says_how_long(self, make: Callable[..., Engines]) -> None:
        """The last request's word on how long the model stays beats the setting's and the catalogue's."""
        engines = make(keep_alive_s=0.2)
        for number, keep_s in (("1", 3600.0), ("2", 0.1)):
            engines.release(engines.acquire(fake(number, keep_alive_s=0)), keep_s)
        wait_until(lambda: models(engines) == {"fake:1"})
        engines.release(engines.acquire(fake("1")), 0.1)
        wait_until(lambda: not models(engines))


class TestByHand:
    def test_load_and_unload(self, make: Callable[..., Engines]) -> None:
        """A model is loaded without a request, and ended when its requests are done."""
        engines = make()
        engines.load(fake())
        wait_until(lambda: [state.state for state in engines.states()] == ["ready"])
        assert not engines.states()[0].pinned
        engine = engines.acquire(fake())
        attempt = submitted(engine, "hello", max_tokens=200)
        assert engines.unload(key_of(fake()))
        assert [state.state for state in engines.states()] == ["ending"]
        assert isinstance(outcome_of(attempt), End)
        engines.release(engine)
        wait_until(lambda: not engines.states())
        assert not engines.unload(key_of(fake()))

    def test_while_one_ends_a_new_one_may_start(self, make: Callable[..., Engines]) -> None:
        """A request that comes while its model's engine is ending gets a new one."""
        engines = make(budget_bytes=3 * FLOOR)
        engine = engines.acquire(sized("5"))
        wait_until(lambda: engine.reservation.held_bytes == 3 * FLOOR and engine.reservation.target_bytes is None)
        engines.unload(key_of(sized("5")))
        assert engines.acquire(sized("5")) is not engine
        assert [state.state for state in engines.states()] == ["ready", "ending"]

    def test_pin(self, make: Callable[..., Engines], monkeypatch: pytest.MonkeyPatch) -> None:
        """A pinned model is loaded again by itself when its engine dies; unloading unpins it."""
        engines = make()
        engines.load(fake(), pin=True)
        wait_until(lambda: [state.state for state in engines.states()] == ["ready"])
        first = engines.pids()[0]
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: engines.pids() and engines.pids()[0] != first)
        wait_until(lambda: [(state.state, state.pinned) for state in engines.states()] == [("ready", True)])
        assert engines.unload(key_of(fake()))
        wait_until(lambda: not engines.states())

    def test_pin_what_is_loaded(self, make: Callable[..., Engines]) -> None:
        """A model that is loaded already is pinned at once."""
        engines = make()
        engines.release(engines.acquire(fake()))
        engines.load(fake(), pin=True)
        assert engines.states()[0].pinned
        assert engines.loads == 1


class TestTooSlow:
    def test_loading_has_a_limit(self, make: Callable[..., Engines]) -> None:
        """A model that does not finish loading fails with that reason, and its process is ended."""
        engines = make(load_timeout_s=1.0)
        with pytest.raises(ModelLoadFailed, match="was not loaded within 1 s"):
            engines.acquire(fake("0:load_s=60"))
        wait_until(lambda: not engines.pids())


class Fleet:
    """Other workers, as the test has it."""

    def __init__(
        self, *, holds: bool = False, fits: bool = False, knows: bool = False, lock: Changes | None = None
    ) -> None:
        self.holds, self.fits, self.knows, self.lock = holds, fits, knows, lock
        self.looks = 0

    def look(self) -> None:
        assert self.lock is None or not self.lock.held, "Redis is asked with the lock held"
        self.looks += 1

    def have_loaded(self, queue: str, key: str) -> bool:
        return self.holds

    def could_load(self, queue: str, entry: ModelEntry) -> bool:
        return self.fits

    def may_know(self, queue: str, key: str) -> bool:
        return self.knows

    def room(self, queue: str) -> str:
        return "studio@mac 96.0 GB" if self.fits or self.holds else ""


class TestSettingAside:
    QUEUE = "tier-under-3B"

    @pytest.fixture
    def aside(self) -> list[Aside]:
        """What was set aside, as the test has it."""
        return []

    @pytest.fixture
    def make_aside(self, make: Callable[..., Engines], aside: list[Aside]) -> Callable[..., Engines]:
        """Makes engines that may set requests aside."""

        def make_aside(fleet: Fleet | None = None, **settings: Any) -> Engines:
            self.backlog = WatchedBacklog(lambda: aside, [self.QUEUE], fleet or Fleet())
            return make(backlog=self.backlog, changes=self.backlog.changes, **settings)

        return make_aside

    def waits(self, aside: list[Aside], entry: ModelEntry, age_s: float = 0.0) -> None:
        """A request waits in this model's aside list, and in no other, since so long ago."""
        aside[:] = [Aside(self.QUEUE, entry.name, "", 1, age_s)]
        self.backlog.look()

    def acquire(self, engines: Engines, entry: ModelEntry) -> Engine:
        return engines.acquire(entry, Job("t1", self.QUEUE))

    def test_what_waits_for_the_work_of_others(self, make_aside: Callable[..., Engines], aside: list[Aside]) -> None:
        """It takes no slot meanwhile; it is asked for again when the others are idle, after what is in the queue itself."""
        engines = make_aside(budget_bytes=FLOOR)
        busy = self.acquire(engines, sized("1"))
        with pytest.raises(SetAside) as caught:
            self.acquire(engines, sized("2"))
        assert caught.value.key == sized("2").name
        self.backlog.watched()
        assert engines.aside_lists(self.QUEUE) == ([sized("1").name], [])
        engines.release(busy)
        self.waits(aside, sized("2"))
        wait_until(lambda: engines.aside_lists(self.QUEUE) == ([sized("1").name], [sized("2").name]))
        assert self.acquire(engines, sized("2")).serves

    def test_what_waited_for_long_gets_its_turn(self, make_aside: Callable[..., Engines], aside: list[Aside]) -> None:
        """The engine that is in its way takes no more requests, which are set aside in turn; then it comes first."""
        engines = make_aside(budget_bytes=FLOOR, fair_wait_s=0.5)
        busy = self.acquire(engines, sized("1"))
        self.waits(aside, sized("2"), age_s=0.6)
        wait_until(lambda: busy.reservation.retiring)
        with pytest.raises(SetAside):
            self.acquire(engines, sized("1"))
        assert engines.aside_lists(self.QUEUE) == ([], [])
        engines.release(busy)
        wait_until(lambda: engines.aside_lists(self.QUEUE).first == [sized("2").name])
        assert self.acquire(engines, sized("2")).serves

    def test_a_turn_lasts(self, make_aside: Callable[..., Engines], aside: list[Aside]) -> None:
        """A model with work that was just loaded does not give way, however long another one has waited."""
        engines = make_aside(budget_bytes=FLOOR, fair_wait_s=2.0)
        busy = self.acquire(engines, sized("1"))
        self.waits(aside, sized("2"), age_s=100)
        wait_until(lambda: busy.reservation.retiring)
        assert time.monotonic() - busy.reservation.since >= 2.0

    def test_others_that_have_it_loaded(self, make_aside: Callable[..., Engines], aside: list[Aside]) -> None:
        """Nobody gives way here for a model that another worker has loaded: what waits for it waits there."""
        engines = make_aside(Fleet(holds=True), budget_bytes=FLOOR, fair_wait_s=0.1)
        busy = self.acquire(engines, sized("1"))
        self.waits(aside, sized("2"), age_s=100)
        self.backlog.watched()
        assert not busy.reservation.retiring

    def test_some_wait_while_it_loads(self, make_aside: Callable[..., Engines]) -> None:
        """While a model loads half of the slots may wait for it; what is more is set aside, and asked for when it is ready."""
        engines = make_aside(slots=4)
        entry = fake("0:load_s=6")
        waiting = [in_thread(lambda: self.acquire(engines, entry)) for _ in range(5)]
        wait_until(lambda: sum(bool(answers) for _, answers in waiting) == 3)
        assert engines.loading
        assert engines.aside_lists(self.QUEUE) == ([], [])
        for thread, _ in waiting:
            thread.join(END_S)
        kinds = sorted(type(answers[0]).__name__ for _, answers in waiting)
        assert kinds == ["Engine", "Engine", "SetAside", "SetAside", "SetAside"]
        wait_until(lambda: engines.aside_lists(self.QUEUE) == ([entry.name], []))

    def test_what_is_set_aside_is_bounded(self, make_aside: Callable[..., Engines]) -> None:
        """A long queue that cannot be served is not taken apart at the machine's full speed."""
        engines = make_aside(budget_bytes=FLOOR, slots=2)
        self.acquire(engines, sized("1"))
        started = time.monotonic()
        for _ in range(10):
            with pytest.raises(SetAside):
                self.acquire(engines, sized("2"))
        assert time.monotonic() - started >= 9 / MOVES_PER_S

    def test_a_model_that_failed(self, make_aside: Callable[..., Engines], aside: list[Aside]) -> None:
        """What was set aside for a model that cannot be loaded is taken, to fail with the reason."""
        engines = make_aside()
        broken = fake("0:load_error=no weights")
        with pytest.raises(ModelLoadFailed):
            self.acquire(engines, broken)
        self.waits(aside, broken)
        wait_until(lambda: engines.aside_lists(self.QUEUE) == ([broken.name], []))

    def test_a_model_that_failed_here_alone(self, make_aside: Callable[..., Engines], aside: list[Aside]) -> None:
        """Where another worker has the model loaded, its requests are left to that one."""
        engines = make_aside(Fleet(holds=True))
        broken = fake("0:load_error=no weights")
        for _ in range(2):
            with pytest.raises(SetAside):
                self.acquire(engines, broken)
        self.waits(aside, broken)
        self.backlog.watched()
        assert engines.aside_lists(self.QUEUE) == ([], [])

    def test_what_fits_elsewhere(self, make_aside: Callable[..., Engines], aside: list[Aside]) -> None:
        """A model that can never fit here is left to the worker that it fits, and is not asked for again here."""
        engines = make_aside(Fleet(fits=True), budget_bytes=FLOOR)
        with pytest.raises(SetAside):
            self.acquire(engines, sized(weights_mb=1000))
        self.waits(aside, sized(weights_mb=1000), age_s=1000)
        self.backlog.watched()
        assert engines.aside_lists(self.QUEUE) == ([], [])

    def test_what_fits_nowhere(self, make_aside: Callable[..., Engines]) -> None:
        """A model that fits no live worker is an error with everybody's numbers."""
        engines = make_aside(Fleet(holds=True), budget_bytes=FLOOR)
        with pytest.raises(OutOfMemory, match=r"the others that serve tier-under-3B: studio@mac 96.0 GB"):
            self.acquire(engines, sized(weights_mb=1000))

    def test_what_fitted_a_worker_that_left(self, make_aside: Callable[..., Engines], aside: list[Aside]) -> None:
        """What was left to a larger worker that is gone is taken here, and fails with the numbers."""
        fleet = Fleet(fits=True)
        engines = make_aside(fleet, budget_bytes=FLOOR)
        large = sized(weights_mb=1000)
        with pytest.raises(SetAside):
            self.acquire(engines, large)
        self.waits(aside, large)
        fleet.fits = False
        wait_until(lambda: engines.aside_lists(self.QUEUE) == ([large.name], []))
        with pytest.raises(OutOfMemory, match=r"needs 1.3\d GB"):
            self.acquire(engines, large)

    def test_what_another_may_know(self, make_aside: Callable[..., Engines], aside: list[Aside]) -> None:
        """A model that this worker's catalogue does not allow is named as such, and left to those that may know it.

        Once nobody may, its requests are taken in order to fail.
        """
        fleet = Fleet(knows=True)
        engines = make_aside(fleet, fair_wait_s=10.0)
        unknown = ModelEntry(name="who/knows", kind="hub", source="who/knows")
        self.waits(aside, unknown, age_s=1000)
        wait_until(lambda: engines.unknown == (unknown.name,))
        assert engines.aside_lists(self.QUEUE) == ([], [])
        fleet.knows = False
        wait_until(lambda: engines.aside_lists(self.QUEUE) == ([unknown.name], []))

    def test_what_another_will_know_again(self, make_aside: Callable[..., Engines], aside: list[Aside]) -> None:
        """A worker that knew the model and restarts has time to do so."""
        engines = make_aside(Fleet(), fair_wait_s=1000.0)
        self.waits(aside, ModelEntry(name="who/knows", kind="hub", source="who/knows"), age_s=500)
        wait_until(lambda: engines.unknown != ())
        assert engines.aside_lists(self.QUEUE) == ([], [])


def test_nothing_is_read_or_started_with_the_lock_held(make: Callable[..., Engines], tmp_path: Path) -> None:
    """Files are read, processes started and peers asked by threads that do not hold the lock that others wait for."""
    changes = Changes()
    seen: list[str] = []
    watching = True

    def audit(event: str, _arguments: object) -> None:
        if watching and changes.held and event.partition(".")[0] in ("open", "os", "subprocess", "socket"):
            seen.append(event)

    sys.addaudithook(audit)  # stays for the life of this process, and does nothing after this test
    peers = Fleet(fits=True, lock=changes)
    queue = TestSettingAside.QUEUE
    aside: list[Aside] = []
    backlog = Backlog(lambda: aside, [queue], peers, changes)
    # Room for one of the two models, which are files that have to be read.
    entries = [
        ModelEntry(name=f"tiny-{number}", kind="path", source=str(make_tiny_model(tmp_path / str(number))))
        for number in range(2)
    ]
    engines = make(
        expected(entries[0], "cpu", Settings().prefill_step_tokens).floor_bytes,
        backlog=backlog,
        changes=changes,
    )
    for entry in entries:
        engines.release(engines.acquire(entry))
    engines.load(entries[0], pin=True)
    wait_until(lambda: engines.state_of(entries[0].name) == "ready", timeout_s=END_S)
    with pytest.raises(SetAside):
        engines.acquire(entries[1], Job("t1", queue))
    engines.unload(key_of(entries[0]))
    wait_until(lambda: not engines.states())
    engines.close()
    assert peers.looks >= 1
    assert engines.loads == 3
    assert seen == []
    with changes:
        (tmp_path / "control").touch()
    assert "open" in seen, "the audit sees nothing"
    watching = False


def test_closing_ends_all(make: Callable[..., Engines]) -> None:
    """No process is left when the worker is done."""
    engines = make()
    processes = [engines.acquire(fake(str(number))).process for number in range(2)]
    engines.close()
    assert [process.exitcode for process in processes] == [0, 0]
    assert engines.pids() == []
