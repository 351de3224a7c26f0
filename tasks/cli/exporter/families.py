"""Every metric of the fleet, and how it follows from the registry. Stems are vLLM's where vLLM has the metric.

Figures are each worker's own, so that they add up over workers in a query; one that leaves takes its series with it. Labels
name workers, models, queues and states: nothing of a request.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from tasks.fleet.reading import read_state
from tasks.fleet.state import ORDER
from tasks.metrics.exposition import Exposition, Metric, labels, mapping
from tasks.registry import Registry
from tasks.registry.values import number

if TYPE_CHECKING:
    from collections.abc import Iterable

    import redis

    from tasks.fleet.state import FleetState, QueueView, WorkerView
    from tasks.messages.registry import WorkerRecord

#: For how long a worker that died is shown as dead, unless it comes back: long enough to be seen by who was away.
DEAD_FOR_S = 3600.0
ENGINE_STATES = ("loading", "ready", "failed")
OUTCOMES = ("succeeded", "failed", "cancelled")

METRICS = (
    Metric("redis_up", "gauge", "", "1 if Redis answered, else 0 and nothing else is known."),
    Metric(
        "last_sweep_age_seconds", "gauge", "", "Time since the last sweep for dead workers; +Inf if there was none."
    ),
    Metric("unreadable_records", "gauge", "", "Records in the registry that cannot be read."),
    Metric("queue_depth", "gauge", "queue", "Requests that wait in a queue, of all priorities."),
    Metric("queue_scheduled", "gauge", "queue", "Further requests of the queue that are not due yet (countdown, eta)."),
    Metric("queue_oldest_seconds", "gauge", "queue", "How long the oldest of them has waited."),
    Metric("queue_workers", "gauge", "queue", "Workers that take requests from a queue now."),
    Metric("queue_slots", "gauge", "queue", "Requests that they can run at once."),
    Metric("queue_slots_busy", "gauge", "queue", "Requests of this queue that they run."),
    Metric(
        "worker_info", "gauge", "worker, version, os, accelerator, chip", "1; the worker's version, system and chip."
    ),
    Metric(
        "worker_status",
        "gauge",
        "worker, status",
        f"1 for the status that a worker has: {', '.join(ORDER)}; or dead, for an hour unless it comes back.",
    ),
    Metric("worker_heartbeat_age_seconds", "gauge", "worker", "Time since a worker's last heartbeat."),
    Metric(
        "worker_start_time_seconds", "gauge", "worker", "When a worker registered, in Unix seconds by Redis's clock."
    ),
    Metric("worker_cpu_ratio", "gauge", "worker", "Use of the worker's machine: processor, 0 to 1."),
    Metric("worker_gpu_ratio", "gauge", "worker", "Use of the worker's machine: GPU, 0 to 1."),
    Metric("worker_memory_used_bytes", "gauge", "worker", "Memory in use on the worker's machine."),
    Metric("worker_memory_total_bytes", "gauge", "worker", "Memory of the worker's machine."),
    Metric("lane_hits_total", "counter", "worker", "Requests that a worker took from its own lanes."),
    Metric("lane_steals_total", "counter", "worker", "Requests that it took from the lanes of other workers."),
    Metric("lane_waiting", "gauge", "worker", "Requests that wait in its lanes."),
    Metric("engine_state", "gauge", "worker, model, state", f"1 for an engine's state: {', '.join(ENGINE_STATES)}."),
    Metric("engine_memory_bytes", "gauge", "worker, model", "Memory that MLX holds for an engine."),
    Metric("engine_restarts_total", "counter", "worker", "Engines that died or stalled and were replaced."),
    Metric("kv_cache_usage_ratio", "gauge", "worker, model", "Share of an engine's memory beside its weights in use."),
    Metric("num_requests_running", "gauge", "worker, model", "Requests in an engine's batch."),
    Metric(
        "num_requests_waiting", "gauge", "worker, model", "Requests that an engine has and that are not in its batch."
    ),
    Metric("request_attempts_total", "counter", "worker, model", "Requests that a worker began with."),
    Metric(
        "request_success_total", "counter", "worker, model, outcome", f"Requests by outcome: {', '.join(OUTCOMES)}."
    ),
    Metric("prompt_tokens_total", "counter", "worker, model", "Tokens of prompts, cached ones included."),
    Metric(
        "prefix_cache_hits_total", "counter", "worker, model", "Tokens of prompts that came out of the prompt cache."
    ),
    Metric("generation_tokens_total", "counter", "worker, model", "Tokens generated."),
    Metric("queue_wait_seconds", "histogram", "worker", "From submission to a worker."),
    Metric("time_to_first_token_seconds", "histogram", "worker", "From submission to the first token."),
    Metric("inter_token_latency_seconds", "histogram", "worker", "From one token of a request to its next."),
    Metric("e2e_request_latency_seconds", "histogram", "worker", "From submission to the end."),
)

LANES = {"lane_hits_total": "hits", "lane_steals_total": "steals", "lane_waiting": "waiting"}
COUNTERS = {
    "request_attempts_total": "attempts",
    "prompt_tokens_total": "prompt_tokens",
    "prefix_cache_hits_total": "cached_tokens",
    "generation_tokens_total": "completion_tokens",
}
HISTOGRAMS = {
    "queue_wait_seconds": "queue_wait_ms",
    "time_to_first_token_seconds": "first_token_ms",
    "inter_token_latency_seconds": "inter_token_ms",
    "e2e_request_latency_seconds": "latency_ms",
}


def scrape(client: redis.Redis) -> bytes:
    """All metrics now, in a handful of round trips, whatever the fleet's size.

    Raises:
        BrokerUnavailable: Redis cannot be reached or refuses for now.
    """
    state = read_state(client)
    return exposition(state, recently_dead(Registry(client).history(), state)).encode()


def redis_away() -> bytes:
    """Return the metrics that need no Redis."""
    found = Exposition(METRICS)
    found.add("redis_up", 0)
    return found.encode()


def recently_dead(history: Iterable[dict[str, Any]], state: FleetState) -> list[str]:
    """Names of workers that died in the last hour and have not come back."""
    present = {worker.record.node for worker in state.workers}
    died = {
        str(departed.get("node"))
        for departed in history
        if departed.get("departed") == "dead" and state.now - (number(departed.get("departed_at")) or -inf) < DEAD_FOR_S
    }
    return sorted(died - present)


def exposition(state: FleetState, dead: Iterable[str] = ()) -> Exposition:
    """The metrics of a fleet in this state."""
    found = Exposition(METRICS)
    found.add("redis_up", 1)
    found.add("last_sweep_age_seconds", inf if state.swept_s is None else state.swept_s)
    found.add("unreadable_records", len(state.unreadable))
    for queue in state.queues:
        _add_queue(found, queue)
    for worker in state.workers:
        _add_worker(found, worker)
    for node in dead:
        found.add("worker_status", 1, labels(worker=node, status="dead"))
    return found


def _add_queue(found: Exposition, queue: QueueView) -> None:
    name = labels(queue=queue.queue)
    found.add("queue_depth", queue.depth, name)
    found.add("queue_scheduled", queue.scheduled, name)
    found.add("queue_oldest_seconds", 0.0 if not queue.depth else queue.oldest_s, name)
    found.add("queue_workers", queue.workers, name)
    found.add("queue_slots", queue.slots, name)
    found.add("queue_slots_busy", queue.busy, name)


def _add_worker(found: Exposition, view: WorkerView) -> None:
    record = view.record
    name = labels(worker=record.node)
    hardware, usage = record.hardware, record.usage
    about = labels(
        version=record.version,
        os=" ".join(str(hardware[name]) for name in ("os_name", "os_version") if hardware.get(name)),
        accelerator=hardware.get("accelerator", ""),
        chip=hardware.get("chip", ""),
    )
    found.add("worker_info", 1, f"{name},{about}")
    for status in ORDER:
        found.add("worker_status", int(view.condition == status), f'{name},status="{status}"')
    found.add("worker_heartbeat_age_seconds", view.beat_age_s, name)
    found.add("worker_start_time_seconds", record.started_at, name)
    found.add("worker_cpu_ratio", _ratio(usage.get("cpu_percent")), name)
    found.add("worker_gpu_ratio", _ratio(usage.get("gpu_percent")), name)
    found.add("worker_memory_used_bytes", usage.get("memory_used_bytes"), name)
    found.add("worker_memory_total_bytes", usage.get("memory_total_bytes"), name)
    lanes = mapping(record.metrics.get("lanes"))
    for metric, counter in LANES.items():
        found.add(metric, lanes.get(counter), name)
    _add_engines(found, record, name)
    _add_requests(found, record, name)


def _add_engines(found: Exposition, record: WorkerRecord, name: str) -> None:
    found.add("engine_restarts_total", record.engine_restarts, name)
    for model, engine in {known.model: known for known in record.engines}.items():
        whose = f"{name},{labels(model=model)}"
        for state in ENGINE_STATES:
            found.add("engine_state", int(engine.state == state), f'{whose},state="{state}"')
        found.add("engine_memory_bytes", engine.memory_bytes, whose)
        found.add("kv_cache_usage_ratio", engine.kv_cache_ratio, whose)
        found.add("num_requests_running", engine.running, whose)
        found.add("num_requests_waiting", engine.waiting, whose)


def _add_requests(found: Exposition, record: WorkerRecord, name: str) -> None:
    for model, figures in mapping(record.metrics.get("models")).items():
        totals = mapping(mapping(figures).get("totals"))
        whose = f"{name},{labels(model=model)}"
        for metric, counter in COUNTERS.items():
            found.add(metric, totals.get(counter), whose)
        for outcome in OUTCOMES:
            found.add("request_success_total", totals.get(outcome), f'{whose},outcome="{outcome}"')
    histograms = mapping(mapping(record.metrics.get("totals")).get("histograms"))
    for metric, distribution in HISTOGRAMS.items():
        found.add_histogram(metric, histograms.get(distribution), name)


def _ratio(percent: Any) -> float | None:
    return percent / 100 if isinstance(percent, int | float) else None
