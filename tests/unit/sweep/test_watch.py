"""Who is dead, judged over successive looks."""

from __future__ import annotations

import pytest

from tasks.registry import Connections
from tasks.sweep.watch import FleetWatch, Look, Seen

A, B = Seen("a@x", "1", 1000.0, "7"), Seen("b@x", "1", 1000.0, "8")
BOTH = frozenset({"a@x#1", "b@x#1"})


def look(
    at: float,
    present: frozenset[str] | None = BOTH,
    *,
    workers: list[Seen] | None = None,
    uptime_s: float = 1000.0,
    run_id: str = "r",
    now: float | None = None,
) -> Look:
    """A look at both workers ``at`` seconds after the start, by a Redis whose clock runs like ours."""
    connections = Connections(run_id, uptime_s, present)
    return Look(at, 1000.0 + at if now is None else now, [A, B] if workers is None else workers, connections)


def dead(watch: FleetWatch, look: Look) -> list[str]:
    """The names of the dead."""
    return [verdict.worker.node for verdict in watch.verdicts(look)]


def test_everybody_present_is_alive() -> None:
    """A worker with a connection and a lease lives."""
    watch = FleetWatch(15.0)
    assert [dead(watch, look(at)) for at in (0, 0.5, 1.0, 100.0)] == [[]] * 4


def test_a_vanished_connection_is_believed_after_a_second() -> None:
    """Absent in looks that span a second is dead; the others are not."""
    watch = FleetWatch(15.0)
    absent = BOTH - {"a@x#1"}
    assert [dead(watch, look(at, absent)) for at in (0, 0.5, 0.99)] == [[], [], ["a@x"]]


def test_one_look_is_never_enough() -> None:
    """However long ago the last look was, the first absence starts the count."""
    watch = FleetWatch(15.0)
    assert dead(watch, look(0)) == []
    assert dead(watch, look(7, BOTH - {"a@x#1"})) == []


def test_a_connection_that_comes_back_starts_anew() -> None:
    """A worker that reconnects within the second is not counted as absent from before."""
    watch = FleetWatch(15.0)
    absent = BOTH - {"a@x#1"}
    looks = [look(0, absent), look(0.5), look(1.0, absent), look(1.5, absent), look(2.0, absent)]
    assert [dead(watch, look) for look in looks] == [[], [], [], [], ["a@x"]]


def test_silence_is_death_even_with_a_connection() -> None:
    """A stopped worker keeps its connection; 15 s without a beat, by Redis's clock, end it."""
    watch = FleetWatch(15.0)
    silent = Seen("a@x", "1", 1000.0, None)
    assert dead(watch, look(14.9, workers=[silent])) == []
    verdicts = watch.verdicts(look(15.0, workers=[silent]))
    assert verdicts[0].reason == "silent for 15.0 s"


def test_a_valid_lease_beats_an_old_beat() -> None:
    """While the lease lasts nobody is silent, whatever the record says."""
    assert dead(FleetWatch(15.0), look(100.0)) == []


def test_a_beat_from_the_future_does_not_make_immortal() -> None:
    """Once the lease is gone, a beat that was written before Redis's clock was put back counts as old."""
    assert dead(FleetWatch(15.0), look(0, workers=[Seen("a@x", "1", 5000.0, None)])) == ["a@x"]


def test_without_permission_to_look_only_silence_counts() -> None:
    """A server that does not let us list connections has no absences."""
    watch = FleetWatch(15.0)
    assert [dead(watch, look(at, None)) for at in (0, 1, 2)] == [[], [], []]


def test_a_worker_without_a_number_is_never_absent() -> None:
    """A lease that names no connection is judged by silence alone."""
    watch = FleetWatch(15.0)
    assert [dead(watch, look(at, frozenset(), workers=[Seen("a@x", "1", 1000.0, "")])) for at in (0, 1, 2)] == [[]] * 3


@pytest.mark.parametrize(
    "disturbance",
    [
        {"run_id": "another"},
        {"now": 5000.0},
        {"now": -5000.0},
    ],
)
def test_nobody_is_dead_for_ten_seconds_after_a_disturbance(disturbance: dict[str, object]) -> None:
    """A new server, or a clock that leaps, makes absence and silence mean nothing for a while."""
    watch = FleetWatch(15.0)
    workers = [Seen("a@x", "1", 0.0, None), B]
    shift = float(disturbance.get("now", 1001.0)) - 1001.0  # type: ignore[arg-type]
    run_id = str(disturbance.get("run_id", "r"))
    watch.verdicts(look(0))
    looks = [
        look(at, frozenset(), workers=workers, run_id=run_id, now=1000.0 + at + shift) for at in (1.0, 5.0, 10.9, 11.1)
    ]
    assert [len(dead(watch, look)) for look in looks] == [0, 0, 0, 2]


def test_a_lost_connection_of_our_own_makes_absences_doubtful() -> None:
    """After its own connection was reset the sweep believes no absence for 5 s; silence it does believe, by the leases."""
    watch = FleetWatch(15.0)
    watch.verdicts(look(0))
    watch.disturbed(0.1)
    silent = Seen("c@x", "1", 0.0, None)
    workers = [A, B, silent]
    looks = [look(at, frozenset(), workers=workers) for at in (0.5, 5.0, 5.2)]
    assert [dead(watch, look) for look in looks] == [["c@x"], ["c@x"], ["a@x", "b@x", "c@x"]]
    assert not watch.believes_absences(5.0)
    assert watch.believes_leases(0.5)


def test_disturbances_without_end_do_not_hide_the_dead() -> None:
    """However often the sweep's own connection is cut, who is silent for too long is dead."""
    watch = FleetWatch(15.0)
    silent = Seen("a@x", "1", 1000.0, None)
    found = []
    for at in range(20):
        watch.disturbed(at - 0.5)
        found.append(dead(watch, look(at, frozenset(), workers=[silent])))
    assert found == [[]] * 15 + [["a@x"]] * 5


def test_after_a_long_absence_of_our_own_nothing_is_believed() -> None:
    """Leases may have ended while everyone, the sweep too, was cut off, or its machine asleep: all are given time."""
    watch = FleetWatch(15.0)
    watch.verdicts(look(0))
    silent = Seen("a@x", "1", 1000.0, None)
    looks = [look(at, frozenset(), workers=[silent, B]) for at in (20, 25, 29.9, 30.1)]
    assert [len(dead(watch, look)) for look in looks] == [0, 0, 0, 2]


def test_a_young_server_is_given_time() -> None:
    """A sweep that starts 3 s after Redis waits for the 7 s that are left."""
    watch = FleetWatch(15.0)
    looks = [look(0, frozenset(), uptime_s=3.0), look(6.9, frozenset(), uptime_s=9.9), look(7.1, frozenset())]
    assert [len(dead(watch, look)) for look in looks] == [0, 0, 2]
