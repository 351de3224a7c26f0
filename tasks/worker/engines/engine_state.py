"""What the registry says of an engine."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tasks.messages.registry import EngineState

if TYPE_CHECKING:
    from tasks.worker.engines.engine import Engine


def state_of(engine: Engine) -> EngineState:
    """Return an engine's state for the registry."""
    last, ready, reservation = engine.last, engine.ready, engine.reservation
    weights_bytes = ready.weights_bytes if ready else None
    return EngineState(
        model=engine.entry.name,
        state="failed" if engine.failure else reservation.state,
        fraction=engine.loading.fraction if engine.loading and not ready else None,
        pid=engine.pid,
        revision=ready.revision if ready else None,
        pinned=reservation.pinned,
        reserved_bytes=reservation.taken_bytes,
        memory_bytes=last.active_bytes if last and last.active_bytes is not None else weights_bytes,
        kv_cache_ratio=_kv_cache_ratio(engine),
        running=last.running if last else 0,
        waiting=last.waiting if last else 0,
        steps=last.step if last else 0,
        idle_s=None if reservation.users or ready is None else round(time.monotonic() - reservation.used_at, 1),
        reason=str(engine.failure or ""),
    )


def _kv_cache_ratio(engine: Engine) -> float | None:
    """See :class:`tasks.messages.registry.EngineState`; ``None`` where MLX says nothing of memory."""
    if engine.ready is None or engine.last is None or engine.last.active_bytes is None:
        return None
    room = engine.reservation.held_bytes - engine.footprint.process_bytes - engine.ready.weights_bytes
    used = engine.last.active_bytes - engine.ready.weights_bytes
    return round(min(max(used / room, 0.0), 1.0), 4) if room > 0 else None
