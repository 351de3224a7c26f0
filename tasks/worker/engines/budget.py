"""One budget of bytes for all engines of a worker: which may start, which is evicted, which gets a share of the rest.

Pure: no clock, no process, no lock. Times are the caller's monotonic seconds, sizes are bytes. An engine starts with what it
needs at the least, its floor; what no floor takes is divided among the engines that are loaded, as more room for KV caches and
cached prompts, and is taken back when another model needs it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tasks.models.key import EngineKey

#: An engine that was used so short a time ago may be used again in a moment: it does not give way yet.
LINGER_S = 0.5
#: An engine's share is not raised for less than this.
LEAST_RAISE_BYTES = 16 << 20
#: A Resize that takes longer waits for requests to end.
SOON_S = 2.0


@dataclass(slots=True, eq=False)
class Reservation:
    """One engine's part of the budget.

    Args:
        key: the engine's.
        floor_bytes: the least that it needs: weights, margin, and the KV cache of one request.
        held_bytes: the bytes that it may use now; all of them are taken until its process has ended.
        since: when it was started, and later when it was loaded.
        sizable: whether its share can be changed.
        pinned: it is never evicted.
        state: ``ending`` is a process that was told to end and may still be there.
        users: requests that have it, or are about to.
        used_at: when the last of them left.
        target_bytes: it was told to come down to this, at ``target_at``, and has not confirmed it yet.
        retiring: it takes no more requests, because somebody has waited for its bytes for too long.
        share_bytes: its even share, which it has once others have come down to theirs.
        promised_bytes: the share that it was last told of.
    """

    key: EngineKey
    floor_bytes: int
    held_bytes: int
    since: float
    sizable: bool = True
    pinned: bool = False
    state: Literal["loading", "ready", "ending"] = "loading"
    users: int = 0
    used_at: float = 0.0
    target_bytes: int | None = None
    target_at: float = 0.0
    retiring: bool = False
    share_bytes: int = 0
    promised_bytes: int = 0

    @property
    def taken_bytes(self) -> int:
        """The bytes that nobody else can have now."""
        return max(self.held_bytes, self.floor_bytes)

    @property
    def final_bytes(self) -> int:
        """The bytes that it will have at its target, which takes as long as its requests."""
        return self.taken_bytes if self.target_bytes is None else max(self.target_bytes, self.floor_bytes)

    @property
    def has_share(self) -> bool:
        """Whether it has a share of the bytes that no floor takes: loaded, with a size that can be changed."""
        return self.state == "ready" and self.sizable

    @property
    def idle(self) -> bool:
        """Whether it could be ended: loaded, without work, not pinned."""
        return self.state == "ready" and self.users == 0 and not self.pinned


@dataclass(slots=True, frozen=True)
class Start:
    """There is room: start the engine now."""


@dataclass(slots=True, frozen=True)
class Clear:
    """There will be room once these engines have ended, and these have come down to so many bytes."""

    end: tuple[Reservation, ...] = ()
    shrink: tuple[tuple[Reservation, int], ...] = ()


@dataclass(slots=True, frozen=True)
class Later:
    """There is no room before something changes; ``soon`` says that it is a matter of a moment."""

    soon: bool


@dataclass(slots=True, frozen=True)
class Never:
    """It does not fit beside the pinned models, were all others gone: at most ``most_bytes`` do."""

    most_bytes: int


Decision: TypeAlias = Start | Clear | Later | Never


@dataclass(slots=True)
class Budget:
    """The reservations, and the decisions about them."""

    total_bytes: int
    linger_s: float = LINGER_S
    reservations: list[Reservation] = field(default_factory=list)

    @property
    def free_bytes(self) -> int:
        """The bytes that nobody has."""
        return self.total_bytes - sum(reservation.taken_bytes for reservation in self.reservations)

    @property
    def most_bytes(self) -> int:
        """The floor of the largest model that could be loaded, were all that are not pinned gone."""
        return self.total_bytes - _floors(reservation for reservation in self.staying() if reservation.pinned)

    def staying(self) -> list[Reservation]:
        """The reservations of engines that were not told to end."""
        return [reservation for reservation in self.reservations if reservation.state != "ending"]

    def decide(self, floor_bytes: int, now: float) -> Decision:
        """Decide whether an engine with this floor can be started, and which others have to make room first.

        Idle engines give way, the longest unused first; engines with work and pinned ones never do.
        """
        if floor_bytes > self.most_bytes:
            return Never(self.most_bytes)
        if floor_bytes <= self.free_bytes:
            return Start()
        staying = self.staying()
        short = floor_bytes + _floors(staying) - self.total_bytes
        ending: list[Reservation] = []
        if short > 0:
            idle = self._idle()
            ripe = [
                reservation
                for reservation in idle
                if reservation.retiring or now - reservation.used_at >= self.linger_s
            ]
            ending = _enough(ripe, short)
            if not ending:
                return Later(soon=bool(_enough(idle, short)) or self._frees_itself(floor_bytes))
        kept = [reservation for reservation in staying if reservation not in ending]
        shrink = self._shrink(kept, floor_bytes)
        if ending or shrink:
            return Clear(tuple(ending), tuple(shrink))
        return Later(soon=self._frees_itself(floor_bytes) or self._just_resized(now))

    def _idle(self) -> list[Reservation]:
        """The engines that could be ended, the longest unused first."""
        return sorted(
            (reservation for reservation in self.staying() if reservation.idle),
            key=lambda idle: idle.used_at,
        )

    def _shrink(self, kept: list[Reservation], floor_bytes: int) -> list[tuple[Reservation, int]]:
        """Return which engines have to shrink, and to what, for one more with this floor."""
        sizable = [reservation for reservation in kept if _can_be_told(reservation)]
        spare = self.total_bytes - _floors(kept) - floor_bytes
        spare -= sum(
            reservation.final_bytes - reservation.floor_bytes for reservation in kept if reservation not in sizable
        )
        share = max(0, spare) // (len(sizable) + 1)
        return [
            (reservation, reservation.floor_bytes + share)
            for reservation in sizable
            if reservation.held_bytes > reservation.floor_bytes + share
        ]

    def _frees_itself(self, floor_bytes: int) -> bool:
        """Whether processes that are ending leave enough behind."""
        ending = sum(reservation.taken_bytes for reservation in self.reservations if reservation.state == "ending")
        return self.free_bytes + ending >= floor_bytes

    def _just_resized(self, now: float) -> bool:
        asked = [reservation for reservation in self.staying() if reservation.target_bytes is not None]
        return bool(asked) and all(now - reservation.target_at < SOON_S for reservation in asked)

    def victims(self, floor_bytes: int, now: float, stay_s: float) -> list[Reservation]:
        """The engines that have to take no more requests, so that a model with this floor gets its turn.

        None with work is evicted that was not loaded for ``stay_s``, and none that has just been loaded or used; idle ones
        before those with work, and of these the longest loaded first. Empty where that is not enough, or where nothing of
        the kind is needed.
        """
        staying = self.staying()
        if floor_bytes > self.most_bytes:
            return []
        short = floor_bytes + _floors(staying) - self.total_bytes
        if short <= 0:
            return [
                reservation
                for reservation in staying
                if reservation.target_bytes is not None and now - reservation.since >= stay_s
            ]
        idle = self._idle()
        busy = sorted(
            (reservation for reservation in staying if reservation.users and not reservation.pinned),
            key=lambda busy: busy.since,
        )
        return _enough(
            (reservation for reservation in (*idle, *busy) if self._had_its_turn(reservation, now, stay_s)), short
        )

    def _had_its_turn(self, reservation: Reservation, now: float, stay_s: float) -> bool:
        return now - reservation.since >= stay_s or (reservation.idle and now - reservation.used_at >= self.linger_s)

    def shares(self, coming: Iterable[int] = ()) -> list[tuple[Reservation, int]]:
        """Return the new sizes of loaded engines that divide the rest evenly.

        Args:
            coming: floors of models that wait to be loaded, the first first. What is left over is kept for those for which it
                is enough: else engines would be given again what was just taken back for these.
        """
        # An engine that has not confirmed its last size has its share, too. It is told of it once it has confirmed.
        sharing = [reservation for reservation in self.staying() if reservation.has_share]
        if not sharing:
            return []
        spare = self.total_bytes - _floors(sharing)
        spare -= sum(reservation.final_bytes for reservation in self.staying() if reservation not in sharing)
        kept = 0
        for floor_bytes in coming:
            kept += floor_bytes if kept + floor_bytes <= spare else 0
        share = max(0, spare - kept) // len(sharing)
        targets = [
            (reservation, reservation.floor_bytes + share) for reservation in sharing if _can_be_told(reservation)
        ]
        for reservation, target in targets:
            reservation.share_bytes = target
        told = [(reservation, target) for reservation, target in targets if target < reservation.held_bytes]
        free = self.free_bytes - kept
        for reservation, target in targets:
            more = min(target - reservation.held_bytes, free)
            if more >= LEAST_RAISE_BYTES:
                told.append((reservation, reservation.held_bytes + more))
                free -= more
        return told

    def promises(self) -> list[Reservation]:
        """Engines that have less than their share, because others have not come down yet, and were not told of it."""
        return [
            reservation
            for reservation in self.staying()
            if _can_be_told(reservation)
            and reservation.share_bytes - reservation.held_bytes >= LEAST_RAISE_BYTES
            and reservation.share_bytes != reservation.promised_bytes
        ]

    def set_target(self, reservation: Reservation, size_bytes: int, now: float) -> None:
        """Note that an engine was told to keep to this size: more is taken at once, less is free when it says so."""
        reservation.target_bytes, reservation.target_at = size_bytes, now
        reservation.held_bytes = max(reservation.held_bytes, size_bytes)

    def target_reached(self, reservation: Reservation, size_bytes: int) -> None:
        """Note that an engine keeps to this size."""
        if size_bytes == reservation.target_bytes:
            reservation.held_bytes, reservation.target_bytes = size_bytes, None


def _can_be_told(reservation: Reservation) -> bool:
    return reservation.has_share and reservation.target_bytes is None


def _floors(reservations: Iterable[Reservation]) -> int:
    return sum(reservation.floor_bytes for reservation in reservations)


def _enough(reservations: Iterable[Reservation], short: int) -> list[Reservation]:
    """Return the first of these whose floors make up for the missing bytes, and no more than needed; empty if all do not."""
    chosen: list[Reservation] = []
    for reservation in reservations:
        chosen.append(reservation)
        if _floors(chosen) >= short:
            break
    else:
        return []
    for reservation in chosen[:-1]:
        if _floors(chosen) - reservation.floor_bytes >= short:
            chosen.remove(reservation)
    return chosen
