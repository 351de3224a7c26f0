"""The budget's policy: by example, and under arbitrary load on a made-up clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tasks.models.key import EngineKey
from tasks.worker.engines.backlog import Waiting
from tasks.worker.engines.budget import (
    LEAST_RAISE_BYTES,
    LINGER_S,
    SOON_S,
    Budget,
    Clear,
    Later,
    Never,
    Reservation,
    Start,
)
from tasks.worker.engines.turns import Turns, Wanted

GB = 1 << 30
A, B, WARM, LARGE, FITS = map(EngineKey, ("a", "b", "warm", "large", "fits"))


def ready(
    name: str, floor_gb: float, *, held_gb: float | None = None, since: float = 0.0, used_at: float = 0.0, **fields: Any
) -> Reservation:
    """The reservation of an engine that is loaded."""
    held = int((floor_gb if held_gb is None else held_gb) * GB)
    return Reservation(EngineKey(name), int(floor_gb * GB), held, since, state="ready", used_at=used_at, **fields)


def budget(total_gb: float, *reservations: Reservation) -> Budget:
    return Budget(int(total_gb * GB), reservations=list(reservations))


class TestDecide:
    def test_where_there_is_room(self) -> None:
        """What fits into the free bytes starts."""
        assert budget(10, ready("a", 4)).decide(6 * GB, 100) == Start()

    def test_what_is_too_large(self) -> None:
        """What does not fit beside the pinned ones never will, with work or without."""
        assert budget(10, ready("a", 4, pinned=True)).decide(7 * GB, 100) == Never(6 * GB)
        assert isinstance(budget(10, ready("a", 4, users=1)).decide(7 * GB, 100), Later)

    def test_the_longest_unused_goes_first(self) -> None:
        """Of idle engines the longest unused go, no more than needed; none with work, none that is pinned."""
        reservations = [
            ready("pinned", 1, pinned=True),
            ready("busy", 1, users=1),
            ready("newer", 2, used_at=50),
            ready("oldest", 2, used_at=10),
            ready("older", 2, used_at=20),
        ]
        assert budget(8, *reservations).decide(2 * GB, 100) == Clear(end=(reservations[3],))
        assert budget(8, *reservations).decide(4 * GB, 100) == Clear(end=(reservations[3], reservations[4]))
        assert budget(8, *reservations).decide(7 * GB, 100) == Later(soon=False)

    def test_nothing_goes_in_vain(self) -> None:
        """A small engine stays when a larger one, used later, has to go anyway."""
        small, large = ready("small", 1, used_at=10), ready("large", 6, used_at=20)
        assert budget(8, small, large).decide(6 * GB, 100) == Clear(end=(large,))

    def test_what_was_just_used_lingers(self) -> None:
        """An engine that has just been used does not give way for a moment, unless it is its turn to."""
        reservation = ready("a", 4, used_at=99.9)
        assert budget(5, reservation).decide(4 * GB, 100) == Later(soon=True)
        assert budget(5, reservation).decide(4 * GB, 99.9 + LINGER_S) == Clear(end=(reservation,))
        reservation.retiring = True
        assert budget(5, reservation).decide(4 * GB, 100) == Clear(end=(reservation,))

    def test_what_is_ending_is_waited_for(self) -> None:
        """The bytes of a process that ends are taken until it is gone."""
        reservation = ready("a", 4)
        reservation.state = "ending"
        ending = budget(5, reservation)
        assert ending.free_bytes == 1 * GB
        assert ending.decide(4 * GB, 100) == Later(soon=True)

    def test_shares_are_taken_back_first(self) -> None:
        """An engine that has more than it needs comes down before any has to end."""
        reservations = [ready("a", 2, held_gb=6), ready("idle", 1, used_at=10)]
        assert budget(8, *reservations).decide(2 * GB, 100) == Clear(shrink=((reservations[0], 3 * GB),))

    def test_a_share_that_does_not_come_back(self) -> None:
        """Who waits for an engine to come down waits a moment; if it has work that needs its share, for longer."""
        reservation = ready("a", 2, held_gb=8, users=1)
        shared = budget(8, reservation)
        shared.set_target(reservation, 4 * GB, 100)
        assert shared.decide(2 * GB, 100) == Later(soon=True)
        assert shared.decide(2 * GB, 100 + SOON_S) == Later(soon=False)
        shared.target_reached(reservation, 5 * GB)  # the answer to something else
        assert reservation.held_bytes == 8 * GB
        shared.target_reached(reservation, 4 * GB)
        assert shared.decide(2 * GB, 100) == Start()

    def test_what_cannot_be_told_keeps_its_share(self) -> None:
        """An engine without a size is left alone."""
        assert budget(8, ready("a", 2, held_gb=8, users=1, sizable=False)).decide(2 * GB, 9) == Later(soon=False)


class TestVictims:
    def test_the_longest_loaded_gives_way(self) -> None:
        """Of engines with work the longest loaded gives way, and none that was not loaded for its time."""
        reservations = [
            ready("new", 4, since=90, users=1),
            ready("older", 4, since=20, users=1),
            ready("old", 4, users=1),
        ]
        assert budget(12, *reservations).victims(4 * GB, 100, 30) == [reservations[2]]
        assert budget(12, *reservations).victims(8 * GB, 100, 30) == [reservations[2], reservations[1]]
        assert budget(12, *reservations).victims(12 * GB, 100, 30) == []

    def test_the_idle_before_the_busy(self) -> None:
        """Engines without work give way first."""
        idle, busy = ready("idle", 4, since=99, used_at=99), ready("busy", 4, users=1)
        assert budget(8, busy, idle).victims(4 * GB, 100, 30) == [idle]

    def test_pinned_and_loading_ones_never(self) -> None:
        """No engine gives way that is pinned, or that is not loaded yet."""
        pinned = ready("pinned", 4, users=1, pinned=True)
        loading = Reservation(EngineKey("loading"), 4 * GB, 4 * GB, 0.0)
        assert budget(8, pinned, loading).victims(4 * GB, 100, 30) == []
        assert budget(8, pinned, loading).victims(5 * GB, 100, 30) == []

    def test_one_that_does_not_come_down(self) -> None:
        """Where a share would be enough, the engine that was asked for it and has work for it is the one."""
        reservation = ready("a", 2, held_gb=8, users=1)
        shared = budget(8, reservation)
        assert shared.victims(2 * GB, 100, 30) == []
        shared.set_target(reservation, 4 * GB, 100)
        assert shared.victims(2 * GB, 100, 30) == [reservation]


class TestAsideLists:
    def test_the_loaded_and_those_there_is_room_for(self) -> None:
        """Taken are requests for what is loaded, before those of the queue itself, and behind these for what fits."""
        turns = Turns(budget(10, ready("warm", 4, users=1)), STAY_S)
        cold = [Wanted(Waiting("q", LARGE, 0.0), 7 * GB, False), Wanted(Waiting("q", FITS, 1.0), 6 * GB, False)]
        assert turns.aside_lists(cold, [("q", WARM), ("r", WARM)], 10.0) == {
            "q": ([WARM], [FITS]),
            "r": ([WARM], []),
        }

    def test_whose_turn_it_is_comes_first(self) -> None:
        """The model that has waited for too long is before those that are loaded; others are not taken meanwhile."""
        warm = ready("warm", 4, users=1)
        turns = Turns(budget(10, warm), STAY_S)
        cold = [Wanted(Waiting("q", LARGE, 0.0), 7 * GB, False), Wanted(Waiting("q", FITS, 1.0), 6 * GB, False)]
        turns.choose(cold, 100.0)
        assert (turns.next_key, warm.retiring) == (LARGE, True)
        assert turns.aside_lists(cold, [], 100.0) == {}
        warm.users = 0
        assert turns.aside_lists(cold, [("q", WARM)], 100.0) == {"q": ([LARGE, WARM], [])}

    def test_it_has_it_elsewhere(self) -> None:
        """Nobody makes room for a model that another worker has loaded."""
        warm = ready("warm", 4, users=1)
        turns = Turns(budget(10, warm), STAY_S)
        turns.choose([Wanted(Waiting("q", LARGE, 0.0), 7 * GB, True)], 100.0)
        assert (turns.next_key, warm.retiring) == (None, False)

    def test_what_failed_is_taken_once(self) -> None:
        """Requests for what failed are taken, as those for what is loaded are, and each model is named once."""
        turns = Turns(budget(10), STAY_S)
        assert turns.aside_lists([], [("q", A), ("q", A)], 0.0, [("q", B)]) == {"q": ([A, B], [])}


class TestShares:
    def test_alone_it_gets_everything(self) -> None:
        """One engine gets all that there is."""
        reservation = ready("a", 2)
        assert budget(8, reservation).shares() == [(reservation, 8 * GB)]

    def test_two_get_half_of_the_rest(self) -> None:
        """What no floor takes is divided evenly; who gives comes down first, and the other gets it when it has."""
        rich, poor = ready("rich", 2, held_gb=7), ready("poor", 1)
        both = budget(8, rich, poor)
        assert both.shares() == [(rich, int(4.5 * GB))]
        both.set_target(rich, int(4.5 * GB), 0)
        assert both.shares() == []
        both.target_reached(rich, int(4.5 * GB))
        assert both.shares() == [(poor, int(3.5 * GB))]

    def test_who_cannot_have_its_share_yet_is_promised_it(self) -> None:
        """Once, and until it has it: a long request then waits instead of being refused."""
        rich, poor = ready("rich", 2, held_gb=7), ready("poor", 1)
        both = budget(8, rich, poor)
        both.set_target(rich, both.shares()[0][1], 0)
        assert both.promises() == [poor]
        assert poor.share_bytes == int(3.5 * GB)
        poor.promised_bytes = poor.share_bytes
        assert both.promises() == []
        both.target_reached(rich, int(4.5 * GB))
        both.set_target(poor, both.shares()[0][1], 0)
        both.target_reached(poor, poor.share_bytes)
        assert both.promises() == []

    def test_a_share_is_promised_while_another_engine_grows(self) -> None:
        """An engine that becomes ready meanwhile has its even share, too; the other one comes down once it has grown."""
        rich, poor = ready("rich", 2), ready("poor", 1)
        both = budget(8, rich, poor)
        both.set_target(rich, 7 * GB, 0)
        assert both.shares() == []
        assert both.promises() == [poor]
        assert poor.share_bytes == int(3.5 * GB)
        both.target_reached(rich, 7 * GB)
        assert both.shares() == [(rich, int(4.5 * GB))]

    def test_what_is_about_to_start_is_kept_free(self) -> None:
        """What another model is about to take is not given away."""
        reservation = ready("a", 2)
        assert budget(8, reservation).shares([5 * GB]) == [(reservation, 3 * GB)]
        assert budget(8, reservation).shares([7 * GB, 4 * GB, 3 * GB]) == [(reservation, 4 * GB)]

    def test_little_is_not_worth_a_word(self) -> None:
        """A share is not raised for next to nothing."""
        reservation = ready("a", 2)
        assert Budget(2 * GB + LEAST_RAISE_BYTES - 1, reservations=[reservation]).shares() == []

    def test_nobody_to_tell(self) -> None:
        """Engines that load, end or have no size are told nothing."""
        assert budget(8, Reservation(A, GB, GB, 0.0), ready("b", 1, sizable=False)).shares() == []


STAY_S = 30.0
LONGEST_S = 20.0
LOAD_S = 5.0
END_S = 1.0
STEP_S = 1.0
MODELS = {"a": 3, "b": 4, "c": 5, "d": 2}


@dataclass(eq=False)
class Simulated:
    """One engine: its reservation, when it is done with what it is at, and its requests with the bytes that each needs."""

    reservation: Reservation
    due: float
    requests: list[tuple[float, int]] = field(default_factory=list)


class Worker(RuleBasedStateMachine):
    """A worker without processes, which follows the policy as :class:`tasks.worker.engines.engines.Engines` does."""

    @initialize(total=st.integers(5, 12), pinned=st.sampled_from(["", "", "d"]))
    def start(self, total: int, pinned: str) -> None:
        self.now = 0.0
        self.budget = budget(total)
        self.turns = Turns(self.budget, STAY_S)
        self.engines: list[Simulated] = []
        self.waiting: dict[str, tuple[float, list[tuple[float, int]]]] = {}
        self.streams: set[str] = set()
        self.pinned = pinned
        self.loads = 0
        self.asked = 0
        self.contested_s = 0.0
        if pinned:
            self.ask_for(pinned, 1.0, 0)

    @rule(model=st.sampled_from([*MODELS]), duration_s=st.floats(0.1, LONGEST_S), need=st.integers(0, 2))
    def ask_for(self, model: str, duration_s: float, need: int) -> None:
        """A request comes."""
        if isinstance(self.budget.decide(MODELS[model] * GB, self.now), Never):
            return
        self.asked += 1
        since, requests = self.waiting.get(model, (self.now, []))
        self.waiting[model] = since, [*requests, (duration_s, need * GB // 8)]

    @rule(model=st.sampled_from([*MODELS]))
    def stream_begins(self, model: str) -> None:
        """From now on this model always has work."""
        self.streams.add(model)

    @precondition(lambda self: self.streams)
    @rule(data=st.data())
    def stream_ends(self, data: st.DataObject) -> None:
        """One model has no longer work all the time."""
        self.streams.remove(data.draw(st.sampled_from(sorted(self.streams))))

    @rule(seconds=st.integers(1, 60))
    def time_passes(self, seconds: int) -> None:
        """The worker does what it does, for a while."""
        for _ in range(int(seconds / STEP_S)):
            self.now += STEP_S
            for model in self.streams:
                if model not in self.waiting:
                    self.ask_for(model, LONGEST_S, 0)
            self.turn()

    def turn(self) -> None:
        """What has come to its end ends; who waits for too long has others retire; who can run runs; the rest is shared."""
        for engine in list(self.engines):
            self.let_end(engine)
        self.retire()
        for model in sorted(self.waiting, key=lambda key: self.waiting[key][0]):
            self.serve(model)
        waiting = sorted(self.waiting, key=lambda key: self.waiting[key][0])
        coming = [MODELS[model] * GB for model in waiting if self.engine_of(model) is None]
        for reservation, size_bytes in self.budget.shares(coming):
            self.budget.set_target(reservation, size_bytes, self.now)
        self.check_waits()

    def let_end(self, engine: Simulated) -> None:
        reservation = engine.reservation
        left = [request for request in engine.requests if request[0] > self.now]
        if len(left) < len(engine.requests):
            reservation.used_at = self.now
        engine.requests, reservation.users = left, len(left)
        if reservation.state == "loading" and engine.due <= self.now:
            reservation.state, reservation.since, reservation.used_at = "ready", self.now, self.now
        elif reservation.state == "ending" and engine.due <= self.now:
            self.engines.remove(engine)
            self.budget.reservations.remove(reservation)
        needed = reservation.floor_bytes + sum(need for _, need in engine.requests)
        if reservation.target_bytes is not None and needed <= max(reservation.target_bytes, reservation.floor_bytes):
            self.budget.target_reached(reservation, reservation.target_bytes)

    def retire(self) -> None:
        waiting = sorted(
            (model for model in self.waiting if self.engine_of(model) is None),
            key=lambda model: self.waiting[model][0],
        )
        cold = [
            Wanted(Waiting("", EngineKey(model), self.waiting[model][0]), MODELS[model] * GB, elsewhere=False)
            for model in waiting
        ]
        self.turns.choose(cold, self.now)

    def serve(self, model: str) -> None:
        engine = self.engine_of(model)
        if engine is not None and engine.reservation.state == "ready" and not engine.reservation.retiring:
            _, requests = self.waiting.pop(model)
            engine.requests += [(self.now + duration, need) for duration, need in requests]
            engine.reservation.users = len(engine.requests)
        elif engine is None and self.turns.may_load(EngineKey(model)):
            self.bring(model)

    def bring(self, model: str) -> None:
        decision = self.budget.decide(MODELS[model] * GB, self.now)
        if isinstance(decision, Start):
            reservation = Reservation(
                EngineKey(model), MODELS[model] * GB, MODELS[model] * GB, self.now, pinned=model == self.pinned
            )
            self.budget.reservations.append(reservation)
            self.engines.append(Simulated(reservation, self.now + LOAD_S))
            self.loads += 1
        elif isinstance(decision, Never):
            del self.waiting[model]  # it is refused, since the pinned model has come
        elif isinstance(decision, Clear):
            for reservation in decision.end:
                assert reservation.users == 0
                assert not reservation.pinned
                reservation.state = "ending"
                next(engine for engine in self.engines if engine.reservation is reservation).due = self.now + END_S
            for reservation, size_bytes in decision.shrink:
                self.budget.set_target(reservation, size_bytes, self.now)

    def engine_of(self, model: str) -> Simulated | None:
        return next(
            (
                engine
                for engine in self.engines
                if engine.reservation.key == model and engine.reservation.state != "ending"
            ),
            None,
        )

    def check_waits(self) -> None:
        """Nobody waits for longer than docs/models.md says: the fair time, and for each other model a turn, with its longest
        request and a load."""
        turn_s = STAY_S + LONGEST_S + LOAD_S + END_S + LINGER_S + 4 * STEP_S
        for model, (since, _) in self.waiting.items():
            waited_s = self.now - since
            assert waited_s <= STAY_S + (len(MODELS) - 1) * turn_s, f"{model} has waited for {waited_s:g} s"

    @invariant()
    def within_the_budget(self) -> None:
        """What is taken is never more than there is."""
        if hasattr(self, "budget"):
            assert self.budget.free_bytes >= 0
            assert all(reservation.held_bytes >= reservation.floor_bytes for reservation in self.budget.reservations)

    @invariant()
    def a_load_is_for_a_request(self) -> None:
        """No model is loaded that nobody asked for."""
        if hasattr(self, "budget"):
            assert self.loads <= self.asked


TestWorker = pytest.mark.timeout(300)(Worker.TestCase)
TestWorker.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def simulate(total_gb: int, load: list[tuple[float, str]], seconds: float) -> Worker:
    """A worker that is asked for these models at these times, each for two seconds."""
    worker = Worker()
    worker.start(total_gb, "")
    coming = sorted(load)
    while worker.now < seconds:
        while coming and coming[0][0] <= worker.now:
            worker.ask_for(coming.pop(0)[1], 2.0, 0)
        worker.now += STEP_S
        worker.turn()
    assert not worker.waiting
    return worker


def test_two_models_with_room_for_both_load_once() -> None:
    """Requests for two models in turn: with room for both each is loaded once."""
    load = [(float(second), "ab"[second % 2]) for second in range(300)]
    assert simulate(8, load, 400).loads == 2


def test_two_models_with_room_for_one_take_turns() -> None:
    """With room for one they take turns of half a minute, instead of one for each request; every request is served."""
    load = [(float(second), "ab"[second % 2]) for second in range(600)]
    loads = simulate(5, load, 800).loads
    assert 2 < loads <= 2 + 600 / STAY_S
