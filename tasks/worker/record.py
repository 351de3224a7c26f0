"""A worker as the registry shows it."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from tasks import __version__
from tasks.messages.registry import WorkerRecord

if TYPE_CHECKING:
    from tasks.messages.registry import Status
    from tasks.worker.worker import InferenceWorker


def describe(worker: InferenceWorker) -> WorkerRecord:
    """The worker's record as it is now. Cheap, because each heartbeat sends it."""
    profile, engines = worker.profile, worker.engines
    metrics = worker.metrics.snapshot()
    rates = {model: counted["tokens_per_s"] for model, counted in metrics["models"].items()}
    states = [replace(state, tokens_per_s=rates.get(state.model, 0.0)) for state in engines.states()]
    status, reason = _status(worker)
    return WorkerRecord(
        node=profile.node,
        boot=profile.boot,
        status=status,
        reason=reason,
        pid=os.getpid(),
        version=__version__,
        concurrency=profile.capacity.slots.total,
        queues=profile.queues,
        slots=dict(worker.room.limits),
        busy=worker.room.busy(),
        paused=worker.room.closed,
        models=[state.model for state in states if state.state == "ready"],
        unknown_models=list(engines.unknown),
        tiers=worker.tiers(),
        engines=states,
        engine_restarts=engines.restarts,
        budget_bytes=profile.capacity.budget_bytes,
        room_bytes=engines.room_bytes,
        hardware=asdict(profile.capacity.hardware),
        usage=asdict(worker.usage.sample(engines.pids(), engines.last_steps())),
        metrics={**metrics, "lanes": worker.lanes.counts()},
    )


def _status(worker: InferenceWorker) -> tuple[Status, str]:
    if worker.drain.reason:
        return "draining", worker.drain.reason
    degraded = worker.engines.degraded()
    if degraded:
        return "degraded", degraded
    if worker.engines.loading:
        return "starting", "loading a model"
    return "online", ""
