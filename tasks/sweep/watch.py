"""Judges which workers are dead, over successive looks at the fleet, without Redis and without a clock of its own."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from tasks.registry import Connections, Grace

#: A leap of Redis's clock against ours by more than this is a change of clocks, not a late reply.
CLOCK_LEAP_S = 2.0
#: Looks come when the thread gets its turn: so much less than ``absent_s`` between the first and the last is enough.
JITTER_S = 0.05


@dataclass(slots=True, frozen=True)
class Seen:
    """One look at one worker. ``lease`` is the client id in its valid lease, ``None`` if it has none."""

    node: str
    boot: str
    beat_at: float
    lease: str | None

    @property
    def identity(self) -> str:
        """``node#boot``."""
        return f"{self.node}#{self.boot}"


@dataclass(slots=True, frozen=True)
class Look:
    """The fleet at one moment: ``at`` by this process's monotonic clock, ``now`` by Redis's clock."""

    at: float
    now: float
    workers: list[Seen]
    connections: Connections


@dataclass(slots=True, frozen=True)
class Verdict:
    """A worker that is dead, and why, for people."""

    worker: Seen
    reason: str


class FleetWatch:
    """Remembers absences between looks.

    Dead is a worker whose connection is absent in looks that span a second, or that has been silent for
    ``dead_after_s`` by Redis's clock.

    Neither is believed for 10 s after Redis has restarted, its clock has leapt, or nobody has looked for so
    long that leases may have ended: everyone is on the way back. When this process lost its own connection for a moment,
    others may have lost theirs, but Redis still has the leases: then absences alone are not believed, for a shorter time.
    """

    def __init__(self, dead_after_s: float, grace: Grace = Grace()) -> None:  # noqa: B008  (it is frozen)
        self._dead_after_s = dead_after_s
        self._grace = grace
        self._absent_since: dict[str, float] = {}
        self._absences_from = self._leases_from = -inf
        self._run_id: str | None = None
        self._clock_offset = 0.0
        self._looked_at = -inf

    def disturbed(self, at: float) -> None:
        """This process lost its own connection."""
        self._absences_from = max(self._absences_from, at + self._grace.reconnected_s)
        self._absent_since.clear()

    def believes_absences(self, at: float) -> bool:
        """Whether a connection that is absent says anything."""
        return at >= self._absences_from

    def believes_leases(self, at: float) -> bool:
        """Whether a lease that is not there says anything."""
        return at >= self._leases_from

    def verdicts(self, look: Look) -> list[Verdict]:
        """Return the workers that are dead, given this look and those before."""
        self._notice_restart(look)
        self._notice_absence(look)
        return [Verdict(worker, reason) for worker in look.workers if (reason := self._reason(worker, look))]

    def _notice_restart(self, look: Look) -> None:
        run_id, offset = look.connections.run_id, look.now - look.at
        if self._run_id is None:
            self._doubt_until(look.at + self._grace.restarted_s - look.connections.uptime_s)
        elif (
            run_id != self._run_id
            or abs(offset - self._clock_offset) > CLOCK_LEAP_S
            or look.at - self._looked_at > self._dead_after_s / 2
        ):
            self._doubt_until(look.at + self._grace.restarted_s)
        self._run_id, self._clock_offset, self._looked_at = run_id, offset, look.at

    def _doubt_until(self, at: float) -> None:
        self._absences_from = max(self._absences_from, at)
        self._leases_from = max(self._leases_from, at)
        self._absent_since.clear()

    def _notice_absence(self, look: Look) -> None:
        present = look.connections.identities
        absent = set()
        if present is not None:
            # A worker without a number in its lease has no connection that could be missed.
            absent = {worker.identity for worker in look.workers if worker.lease and worker.identity not in present}
        self._absent_since = {identity: self._absent_since.get(identity, look.at) for identity in absent}

    def _reason(self, worker: Seen, look: Look) -> str:
        since = self._absent_since.get(worker.identity)
        if since is not None and look.at - since >= self._grace.absent_s - JITTER_S and self.believes_absences(look.at):
            return f"its connection has been gone for {look.at - since:.1f} s"
        silent_s = look.now - worker.beat_at
        # A beat from the future was written before Redis's clock was put back.
        if worker.lease is None and self.believes_leases(look.at) and not 0 <= silent_s < self._dead_after_s:
            return f"silent for {silent_s:.1f} s"
        return ""
