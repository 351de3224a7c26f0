from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import InvalidRequest, UnknownModel
from tasks.messages.memory import KvSize
from tasks.messages.registry import Unreadable, WorkerRecord
from tasks.models.files import ModelSize
from tasks.models.routing import (
    FleetSnapshot,
    QueueCapacity,
    queue_for,
    queue_for_model,
    route_task,
    route_tier,
    size_of,
    snapshot_of,
    tier_for,
    tier_of,
)
from worker_config.catalogue import load_catalogue
from worker_config.model_entry import ModelEntry
from worker_config.settings import Settings
from worker_config.tiers import QUEUES, TIERS, tier_named, tier_of_queue
from worker_config.units import GIB

if TYPE_CHECKING:
    from pathlib import Path

NOTHING = FleetSnapshot()
BUILT_IN = load_catalogue(Settings(allow_fake=True))


def hub(source: str, **fields: Any) -> ModelEntry:
    return ModelEntry(name=source, kind="hub", source=source, **fields)


@pytest.mark.parametrize(
    ("billions", "tier"),
    [
        (0.135, "<3B"), (2.49, "<3B"), (2.5, "3-7B"), (3, "3-7B"), (6.49, "3-7B"), (6.5, "7-13B"), (6.74, "7-13B"),
        (12.4, "7-13B"), (12.5, "13-27B"), (13, "13-27B"), (27.4, "13-27B"), (27.5, "30B+"), (28, "30B+"), (1026, "30B+"),
    ],
)  # fmt: skip
def test_a_tier_follows_from_rounded_parameters(billions: float, tier: str) -> None:
    """Nearest billion, half up, lower bound inclusive; a 27B of 27.4 stays, 28 is the largest tier's."""
    assert tier_for(ModelSize(parameters_b=billions)).name == tier


@pytest.mark.parametrize(
    ("billions", "weights_gib", "tier"),
    [
        (8, 4.2, "7-13B"),
        (8, 12.2, "7-13B"),
        (8, 12.4, "13-27B"),
        (8, 15, "13-27B"),
        (2, 5.8, "<3B"),
        (2, 6.2, "7-13B"),
        (27, 25.0, "13-27B"),
        (27, 25.2, "30B+"),
        (70, 140, "30B+"),
    ],
)
def test_weights_that_do_not_fit_move_a_model_up(billions: float, weights_gib: float, tier: str) -> None:
    """80 % of the tier's memory must hold the weights and half a GiB of KV cache; nothing moves beyond the last tier."""
    assert tier_for(ModelSize(parameters_b=billions, weights_bytes=int(weights_gib * GIB))).name == tier


def test_a_large_kv_cache_moves_a_model_up() -> None:
    """Room is for 4,096 tokens of this model's own cache, or for its context where that is shorter."""
    weights = int(11.5 * GIB)
    per_token = GIB // 1024
    roomy = ModelSize(
        parameters_b=8, weights_bytes=weights, kv=KvSize(bytes_per_token=per_token), context_tokens=131072
    )
    short = ModelSize(parameters_b=8, weights_bytes=weights, kv=KvSize(bytes_per_token=per_token), context_tokens=1024)
    assert tier_for(roomy).name == "13-27B"
    assert tier_for(short).name == "7-13B"


@given(st.floats(0, 2000), st.floats(0, 2000), st.none() | st.integers(0, 10**13), st.integers(0, 10**12))
def test_larger_models_never_go_to_smaller_tiers(billions: float, more: float, weights: int | None, extra: int) -> None:
    """Parameters and bytes only ever move a model up."""
    smaller = tier_for(ModelSize(parameters_b=billions, weights_bytes=weights))
    larger = tier_for(
        ModelSize(parameters_b=billions + more, weights_bytes=None if weights is None else weights + extra)
    )
    assert TIERS.index(smaller) <= TIERS.index(larger)


def test_every_built_in_model_goes_where_its_section_says() -> None:
    """The catalogue's order of tiers is what routing makes of it, without any of their files."""
    tiers = [tier_of(entry, ModelSize()) for entry in BUILT_IN.models.values()]
    assert tiers == sorted(tiers, key=TIERS.index)
    assert set(tiers) == set(TIERS)


def test_the_catalogue_beats_the_files_and_the_files_beat_the_name() -> None:
    """A pinned tier beats everything; parameters come from the best source that there is."""
    name, files = "acme/Model-70B-4bit", ModelSize(parameters_b=8, weights_bytes=4 * GIB)
    assert tier_of(hub(name, tier=tier_named("3-7B"), parameters_b=20), files).name == "3-7B"
    assert size_of(hub(name, parameters_b=20), files).parameters_b == 20
    assert size_of(hub(name), files) == ModelSize(parameters_b=8, weights_bytes=4 * GIB)
    assert size_of(hub(name), ModelSize()).parameters_b == 70


def test_bytes_are_reckoned_from_the_name_where_no_file_tells() -> None:
    """With its bits; a hub id without any holds 16-bit weights, a folder without any may hold anything."""
    assert size_of(hub("acme/M-8B-4bit"), ModelSize()).weights_bytes == 4_500_000_000
    assert size_of(hub("acme/M-8B"), ModelSize()).weights_bytes == 16_000_000_000
    folder = ModelEntry(name="m", kind="path", source="/nowhere/M-8B")
    assert size_of(folder, ModelSize()).weights_bytes is None


def test_a_size_that_nothing_tells_is_refused() -> None:
    """The message says what to add where."""
    with pytest.raises(UnknownModel, match=r"acme/secret.*parameters_b or tier"):
        tier_of(hub("acme/secret"), ModelSize())


def test_a_local_model_is_measured(tmp_path: Path) -> None:
    """A folder's own files decide, and a damaged one says so where the name does not help."""
    folder = tmp_path / "mystery"
    folder.mkdir()
    entry = ModelEntry(name="m", kind="path", source=str(folder))
    with pytest.raises(UnknownModel, match=r"config\.json"):
        tier_of(entry)
    config = {
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 14336,
        "vocab_size": 128256,
    }
    (folder / "config.json").write_text(json.dumps(config))
    assert tier_of(entry).name == "7-13B"


def test_a_fetched_hub_model_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in the hub's cache tells more than the name."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--acme--Odd-70B" / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    index = {"metadata": {"total_size": GIB, "total_parameters": 1_000_000_000}, "weight_map": {}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    assert tier_of(hub("acme/Odd-70B")).name == "<3B"


def test_all_producers_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies on a producer's disk does not change where it sends requests; what the fleet's workers have on theirs does."""
    entry = hub("acme/Odd-70B")
    without = route_tier(entry)
    test_a_fetched_hub_model_is_measured(tmp_path, monkeypatch)
    assert route_tier(entry) is without is tier_named("30B+")
    assert route_tier(entry, "tier-under-3B") is tier_named("<3B")
    assert route_tier(entry, "somebody's queue") is without
    assert route_tier(hub("acme/Odd-70B", tier=tier_named("3-7B")), "tier-under-3B") is tier_named("3-7B")


def test_the_files_are_the_last_resort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose name tells no size is sent by the files that are here, and refused where there are none."""
    entry = hub("acme/Odd")
    with pytest.raises(UnknownModel):
        route_tier(entry)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--acme--Odd" / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    index = {"metadata": {"total_size": GIB, "total_parameters": 1_000_000_000}, "weight_map": {}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    assert route_tier(entry).name == "<3B"


def test_the_fleet_tells_tiers() -> None:
    """The records of live workers say which tiers their files are of; where two disagree, the larger one holds everywhere."""

    def record(node: str, **values: Any) -> WorkerRecord:
        return WorkerRecord(node=node, boot="1", **{"status": "online", **values})

    records = [
        record("a", tiers={"m": "tier-3-7B", "n": "tier-7-13B", "o": "no tier"}),
        record("b", tiers={"m": "tier-7-13B"}),
        record("c", status="draining", tiers={"n": "tier-30B-plus"}),
    ]
    wanted = {"m": "tier-7-13B", "n": "tier-7-13B"}
    assert snapshot_of(records).tiers == snapshot_of(records[::-1]).tiers == wanted


@pytest.mark.parametrize(
    ("model", "queue"),
    [
        ("smollm2-135m", "tier-under-3B"),
        ("qwen3-4b", "tier-3-7B"),
        ("mlx-community/Meta-Llama-3.1-8B-Instruct-bf16", "tier-13-27B"),
        ("gpt-oss-20b", "tier-13-27B"),
        ("mlx-community/Mixtral-8x7B-Instruct-v0.1-4bit", "tier-30B-plus"),
        ("fake:10", "tier-under-3B"),
        ("fake:10@7-13B", "tier-7-13B"),
    ],
)
def test_a_model_has_a_queue(model: str, queue: str) -> None:
    """By name, by hub id, fake or real; Celery's hook says the same."""
    assert queue_for_model(model, BUILT_IN) == queue
    assert route_task("tasks.generate", (), {"model": model}, {}) == {"queue": queue}
    assert queue_for(model, NOTHING, BUILT_IN).queue == queue


def test_a_route_that_is_served_has_no_warning() -> None:
    """A live worker on the queue is all it takes."""
    snapshot = FleetSnapshot({"tier-7-13B": QueueCapacity(1, 6, 0)})
    route = queue_for("qwen3-8b", snapshot, BUILT_IN, ModelSize())
    assert (route.queue, route.tier.name, route.warning) == ("tier-7-13B", "7-13B", None)


def test_a_route_that_nobody_serves_warns() -> None:
    """It names the queue, what the fleet serves instead, and the machine that would do."""
    snapshot = FleetSnapshot({"tier-under-3B": QueueCapacity(2, 20, 0)})
    warning = queue_for("qwen3-8b", snapshot, BUILT_IN, ModelSize()).warning or ""
    assert "tier-7-13B" in warning
    assert "the fleet serves tier-under-3B" in warning
    assert "celery -A tasks worker -Q tier-7-13B" in warning
    assert "15 GPU cores and 16 GB" in warning
    assert "no queue at all" in (queue_for("smollm2-135m", NOTHING, BUILT_IN, ModelSize()).warning or "")


def test_an_unknown_model_is_refused_by_every_door() -> None:
    """The same error with what comes close, from delay's hook too, and each time a new one."""
    for _ in range(2):
        with pytest.raises(UnknownModel, match="qwen3-8b"):
            route_task("tasks.generate", (), {"model": "qwen3-8"}, {})
    with pytest.raises(UnknownModel):
        queue_for("qwen3-8", NOTHING, BUILT_IN)


def test_a_request_without_model_goes_to_the_defaults_queue() -> None:
    """No kwargs at all, none with a model, or an empty one."""
    for kwargs in (None, {}, {"model": None}):
        assert route_task("tasks.generate", (), kwargs, {}) == {"queue": "tier-under-3B"}


def test_a_model_that_is_no_text_is_an_invalid_request() -> None:
    """It names the field and the value."""
    with pytest.raises(InvalidRequest, match=r"model=\['x'\]"):
        route_task("tasks.generate", (), {"model": ["x"]}, {})


def test_other_tasks_are_left_alone() -> None:
    """A neighbour's task goes where it always went, whatever its arguments."""
    assert route_task("billing.charge", (), {"model": "nonsense"}, {}, task=None) is None


def record(node: str, **fields: Any) -> WorkerRecord:
    return WorkerRecord(**{"node": node, "boot": "b", "status": "online", "beat_at": 100.0, **fields})


def test_a_snapshot_adds_up_the_live_workers() -> None:
    """Workers that drain, pause, were silent too long or cannot be read serve nothing; degraded and starting ones do."""
    both = {"queues": ["q", "r"], "slots": {"q": 4, "r": 2}, "busy": {"q": 1}}
    records: list[WorkerRecord | Unreadable] = [
        record("a", **both),
        record("b", **both, status="degraded"),
        record("c", **both, status="starting"),
        record("d", **both, status="draining"),
        record("e", **both, paused=True),
        record("f", **both, beat_at=80.0),
        Unreadable("g", "garbage"),
        record("h", queues=["s"]),
    ]
    snapshot = snapshot_of(records, 85.0)
    assert snapshot.queues == {"q": QueueCapacity(3, 12, 3), "r": QueueCapacity(3, 6, 0), "s": QueueCapacity(1, 0, 0)}
    assert snapshot_of(records).queues["q"].workers == 4


def test_a_snapshot_survives_garbage_in_a_record() -> None:
    """Counts and queues of the wrong type count for nothing."""
    odd: Any = {"queues": ["q", 7, {}], "slots": ["q"], "busy": {"q": "many"}}
    assert snapshot_of([record("a", **odd)]).queues == {"q": QueueCapacity(1, 0, 0)}


@given(st.sampled_from(sorted(BUILT_IN.models)), st.sets(st.sampled_from(QUEUES)))
def test_a_route_depends_on_the_model_and_a_warning_on_the_fleet(model: str, served: set[str]) -> None:
    """The queue is always a tier's and always the same; it warns exactly where nobody serves it."""
    snapshot = FleetSnapshot({queue: QueueCapacity(1, 1, 0) for queue in served})
    route = queue_for(model, snapshot, BUILT_IN, ModelSize())
    assert route.queue == queue_for(model, NOTHING, BUILT_IN, ModelSize()).queue
    assert tier_of_queue(route.queue) is route.tier
    assert (route.warning is None) == (route.queue in served)
