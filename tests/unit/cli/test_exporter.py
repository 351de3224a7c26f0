"""The fleet as Prometheus reads it, checked with Prometheus's own parser."""

from __future__ import annotations

import json
import re
from http.client import HTTPConnection
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from tasks.cli.exporter.families import METRICS, OUTCOMES, exposition, recently_dead, redis_away
from tasks.cli.exporter.server import MetricsServer
from tasks.fleet.state import FleetState, QueueView, WorkerView
from tasks.messages.registry import EngineState, Unreadable, WorkerRecord, decode_record
from tasks.metrics.collector import MetricsCollector
from tasks.metrics.exposition import Exposition, Metric, labels

if TYPE_CHECKING:
    from collections.abc import Iterable

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parsed(body: bytes) -> Samples:
    """Every sample, by its name and labels; no sample comes twice."""
    found: Samples = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            key = sample.name.removeprefix("celery_mlx_"), tuple(sorted(sample.labels.items()))
            assert key not in found, key
            found[key] = sample.value
    return found


def value(samples: Samples, name: str, **wanted: str) -> float:
    return samples[name, tuple(sorted(wanted.items()))]


def worked(requests: int = 2, model: str = "m") -> dict[str, Any]:
    """The figures of a worker that has answered requests of two tokens, 100 ms apart, and still runs one."""
    now = [1000.0]
    collector = MetricsCollector(lambda: now[0])
    for number in range(requests):
        collector.started(str(number), model, 20.0)
        for _ in range(2):
            now[0] += 0.1
            collector.tokens(str(number))
        collector.ended(str(number), "succeeded", prompt_tokens=7, cached_tokens=3)
    collector.started("failing", model)
    collector.ended("failing", "failed")
    collector.started("running", model)
    snapshot: dict[str, Any] = json.loads(json.dumps(collector.snapshot()))
    return snapshot


def view(node: str = "mac@lab", *, leased: bool = True, loop_age_s: float = 1.0, **values: Any) -> WorkerView:
    engine = EngineState(model="m", state="ready", memory_bytes=5_000, kv_cache_ratio=0.25, running=3, waiting=1)
    hardware = {"chip": "Apple M2", "accelerator": "metal", "os_name": "macOS", "os_version": "15.5"}
    known = {
        "status": "online",
        "engines": [engine],
        "engine_restarts": 2,
        "hardware": hardware,
        "usage": {"cpu_percent": 50.0, "gpu_percent": None, "memory_used_bytes": 3, "memory_total_bytes": 4},
        "metrics": worked(),
    }
    record = WorkerRecord(node=node, boot="b1", **{**known, **values})
    return WorkerView(record, beat_age_s=3.0, loop_age_s=loop_age_s, leased=leased)


def fleet(*workers: WorkerView, swept_s: float | None = 0.5, unreadable: Iterable[Unreadable] = ()) -> FleetState:
    queue = QueueView("tier-3-7B", "3-7B", depth=4, oldest_s=12.5, workers=1, slots=8, busy=3)
    return FleetState(1000.0, list(workers), list(unreadable), [queue], swept_s, "beat")


def test_a_workers_requests_are_counted_by_model_and_outcome() -> None:
    """Counters and histograms are those of its record, in seconds."""
    samples = parsed(exposition(fleet(view())).encode())
    about = {"worker": "mac@lab", "model": "m"}
    assert value(samples, "request_success_total", **about, outcome="succeeded") == 2
    assert value(samples, "request_success_total", **about, outcome="failed") == 1
    assert value(samples, "request_success_total", **about, outcome="cancelled") == 0
    assert value(samples, "request_attempts_total", **about) == 4
    assert value(samples, "prompt_tokens_total", **about) == 14
    assert value(samples, "prefix_cache_hits_total", **about) == 6
    assert value(samples, "generation_tokens_total", **about) == 4
    assert value(samples, "inter_token_latency_seconds_count", worker="mac@lab") == 2
    assert value(samples, "inter_token_latency_seconds_sum", worker="mac@lab") == pytest.approx(0.2)
    assert value(samples, "time_to_first_token_seconds_bucket", worker="mac@lab", le="0.1") == 0
    assert value(samples, "time_to_first_token_seconds_bucket", worker="mac@lab", le="0.25") == 2
    assert value(samples, "time_to_first_token_seconds_bucket", worker="mac@lab", le="+Inf") == 2
    assert value(samples, "queue_wait_seconds_sum", worker="mac@lab") == pytest.approx(0.04)


def test_what_a_worker_is_and_has() -> None:
    """Engines, machine and version; what is not known has no series."""
    samples = parsed(exposition(fleet(view(version="1.0"))).encode())
    engine = {"worker": "mac@lab", "model": "m"}
    assert value(samples, "engine_state", **engine, state="ready") == 1
    assert value(samples, "engine_state", **engine, state="failed") == 0
    assert value(samples, "engine_restarts_total", worker="mac@lab") == 2
    assert value(samples, "kv_cache_usage_ratio", **engine) == 0.25
    assert value(samples, "num_requests_running", **engine) == 3
    assert value(samples, "num_requests_waiting", **engine) == 1
    assert value(samples, "worker_cpu_ratio", worker="mac@lab") == 0.5
    about = {"version": "1.0", "os": "macOS 15.5", "accelerator": "metal", "chip": "Apple M2"}
    assert value(samples, "worker_info", worker="mac@lab", **about) == 1
    assert not any(name == "worker_gpu_ratio" for name, _ in samples)


@pytest.mark.parametrize(
    ("worker", "status"),
    [
        (view(), "online"),
        (view(leased=False), "silent"),
        (view(loop_age_s=99.0), "stuck"),
        (view(status="draining"), "draining"),
    ],
)
def test_a_worker_has_one_status(worker: WorkerView, status: str) -> None:
    """The one that it is in, as the rest of the fleet sees it, is 1 and all others are 0."""
    samples = parsed(exposition(fleet(worker)).encode())
    found = {dict(key)["status"]: count for (name, key), count in samples.items() if name == "worker_status"}
    assert [status for status, count in found.items() if count] == [status]
    assert len(found) == 6


def test_queues_and_sweep() -> None:
    """Depth, age and who serves, for each queue; no sweep is an age without end, which every alert exceeds."""
    samples = parsed(exposition(fleet(view(), unreadable=[Unreadable("x", "garbage")])).encode())
    assert value(samples, "queue_depth", queue="tier-3-7B") == 4
    assert value(samples, "queue_oldest_seconds", queue="tier-3-7B") == 12.5
    assert value(samples, "queue_workers", queue="tier-3-7B") == 1
    assert value(samples, "queue_slots_busy", queue="tier-3-7B") == 3
    assert value(samples, "last_sweep_age_seconds") == 0.5
    assert value(samples, "unreadable_records") == 1
    assert value(samples, "redis_up") == 1
    assert value(parsed(exposition(fleet(swept_s=None)).encode()), "last_sweep_age_seconds") == float("inf")


def test_a_worker_that_died_is_dead_for_an_hour_and_then_forgotten() -> None:
    """Unless it is back; one that left in order is not dead."""
    history: list[dict[str, Any]] = [
        {"node": "died@lab", "departed": "dead", "departed_at": 990.0},
        {"node": "mac@lab", "departed": "dead", "departed_at": 990.0},
        {"node": "left@lab", "departed": "left", "departed_at": 990.0},
        {"node": "long-ago@lab", "departed": "dead", "departed_at": 1000.0 - 3601},
        {"node": "garbage@lab", "departed": "dead", "departed_at": "soon"},
    ]
    state = fleet(view())
    dead = recently_dead(history, state)
    assert dead == ["died@lab"]
    samples = parsed(exposition(state, dead).encode())
    assert value(samples, "worker_status", worker="died@lab", status="dead") == 1
    assert not any(dict(key).get("worker") == "died@lab" and name != "worker_status" for name, key in samples)


def test_histograms_of_several_workers_have_the_same_buckets() -> None:
    """So that they add up in a query, whatever each of them has seen."""
    samples = parsed(exposition(fleet(view("a@x"), view("b@x", metrics=worked(0)))).encode())
    bounds: dict[str, set[str]] = {}
    for name, key in samples:
        if name == "inter_token_latency_seconds_bucket":
            bounds.setdefault(dict(key)["worker"], set()).add(dict(key)["le"])
    assert bounds["a@x"] == bounds["b@x"]
    assert len(bounds["a@x"]) == 15


def test_the_labels_say_nothing_of_a_request() -> None:
    """Names of labels come from a short list, and their values from the fleet's own words."""
    allowed = {"worker", "model", "queue", "status", "state", "outcome", "le", "version", "os", "accelerator", "chip"}
    samples = parsed(exposition(fleet(view())).encode())
    assert {name for _, key in samples for name, _ in key} <= allowed
    for metric in METRICS:
        assert set(filter(None, metric.labels.split(", "))) <= allowed


def test_every_metric_is_announced_even_without_a_sample() -> None:
    """Without Redis nothing is known, and everything is named with its kind."""
    body = redis_away()
    assert parsed(body) == {("redis_up", ()): 0}
    announced = dict(re.findall(r"^# TYPE (\S+) (\S+)$", body.decode(), re.MULTILINE))
    assert announced == {metric.full_name: metric.kind for metric in METRICS}
    assert all(metric.name.endswith("_total") == (metric.kind == "counter") for metric in METRICS)


def test_a_hostile_name_cannot_break_a_line() -> None:
    """Quotes, backslashes, line breaks and half characters in a name are escaped."""
    name = 'a"} 1\n# \\ \ud800'
    samples = parsed(exposition(fleet(view(name))).encode())
    assert value(samples, "engine_restarts_total", worker='a"} 1\n# \\ ?') == 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
HISTOGRAM = st.fixed_dictionaries({"le": JSON, "buckets": JSON, "count": JSON, "sum": JSON}) | JSON


@given(usage=st.dictionaries(st.sampled_from(["cpu_percent", "memory_used_bytes"]), JSON), counter=JSON, le=HISTOGRAM)
def test_whatever_a_record_says_the_page_can_be_read(usage: dict[str, Any], counter: Any, le: Any) -> None:
    """A worker of another version, or somebody with a password, cannot take the others' metrics away."""
    metrics = {
        "models": {"m": {"totals": {"completion_tokens": counter}}, "n": counter},
        "totals": {"histograms": {"latency_ms": le}},
    }
    payload = json.dumps({"v": 1, "node": "w", "boot": "b", "status": "online", "usage": usage, "metrics": metrics})
    record = decode_record("w", payload)
    assert isinstance(record, WorkerRecord)
    samples = parsed(exposition(fleet(view(), WorkerView(record, 1.0, 1.0, leased=True))).encode())
    assert value(samples, "engine_restarts_total", worker="w") == 0
    assert value(samples, "engine_restarts_total", worker="mac@lab") == 2


def test_an_undeclared_metric_is_a_mistake() -> None:
    """Nothing is exported that is not in the table."""
    with pytest.raises(KeyError):
        Exposition([Metric("known", "gauge", "", "")]).add("unknown", 1)
    assert labels(a="1", b='"') == 'a="1",b="\\""'
    assert set(OUTCOMES) == {"succeeded", "failed", "cancelled"}


def test_the_server_has_one_page() -> None:
    """/metrics is made for each request; other paths are 404, HEAD has no body."""
    pages = iter([b"page 0\n", b"page 1\n", b"page 2\n"])
    with MetricsServer("127.0.0.1", 0, pages.__next__) as server:
        assert server.url == f"http://127.0.0.1:{server.server_address[1]!s}/metrics"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            answers = []
            connection = HTTPConnection("127.0.0.1", int(server.server_address[1]), timeout=60)
            for method, path in (
                ("GET", "/metrics"),
                ("GET", "/metrics?x=1"),
                ("HEAD", "/metrics"),
                ("GET", "/nothing"),
            ):
                connection.request(method, path)
                response = connection.getresponse()
                answers.append((response.status, response.read()))
                if path == "/metrics":
                    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            connection.request("GET", "/")
            assert b"/metrics" in connection.getresponse().read()
            connection.close()
        finally:
            server.shutdown()
            thread.join()
    assert answers == [(200, b"page 0\n"), (200, b"page 1\n"), (200, b""), (404, b"not here: see /metrics\n")]


def test_the_server_listens_at_ipv6_too() -> None:
    """An address in colons is written in brackets."""
    try:
        server = MetricsServer("::1", 0, bytes)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with server:
        assert server.url.startswith("http://[::1]:")
