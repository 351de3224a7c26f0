"""The part of the fleet's state that the gateway's page shows: nothing of machines or requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.fleet.state import FleetState


def overview(state: FleetState) -> dict[str, Any]:
    """Workers, queues and what somebody should look into."""
    return {
        "workers": [
            {
                "name": worker.record.node,
                "condition": worker.condition,
                "slots": sum(worker.record.slots.values()),
                "busy": sum(worker.record.busy.values()),
                "models": [
                    {"name": engine.model, "state": engine.state} for engine in worker.record.engines if worker.leased
                ],
            }
            for worker in state.workers
        ],
        "queues": [
            {
                "name": queue.tier or queue.queue,
                "waiting": queue.depth,
                "oldest_s": queue.oldest_s,
                "workers": queue.workers,
                "slots": queue.slots,
                "busy": queue.busy,
            }
            for queue in state.queues
        ],
        "warnings": state.warnings,
    }
