"""The worker's record as JSON: what was written comes back, and nothing else can do harm."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.messages.registry import EngineState, Unreadable, WorkerRecord, decode_record, encode_record

RECORD = WorkerRecord(
    node="studio@mac",
    boot="b1",
    status="online",
    queues=["tier-3-7B"],
    slots={"tier-3-7B": 8},
    engines=[EngineState(model="m", state="ready", pid=1)],
    hardware={"chip": "Apple M3 Ultra"},
)
VALUES = asdict(RECORD) | {"v": 1}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def test_a_record_comes_back_as_it_was() -> None:
    """Encoding and decoding lose nothing."""
    assert decode_record("studio@mac", encode_record(RECORD)) == RECORD


def test_unknown_fields_are_dropped() -> None:
    """A record with fields that this version does not know is read without them."""
    engines = [asdict(RECORD.engines[0]) | {"colour": "red"}]
    payload = json.dumps(VALUES | {"mood": "good", "engines": engines})
    assert decode_record("studio@mac", payload) == RECORD


def test_a_newer_version_is_named() -> None:
    """A record of a later version is shown as such."""
    found = decode_record("studio@mac", json.dumps({"v": 2, "everything": "else"}))
    assert isinstance(found, Unreadable)
    assert "newer version (record version 2" in found.why


def test_a_record_under_another_name_is_unreadable() -> None:
    """A record cannot pass for the one of another worker."""
    found = decode_record("other@mac", encode_record(RECORD))
    assert isinstance(found, Unreadable)
    assert "'studio@mac'" in found.why


@pytest.mark.parametrize("payload", [b"", b"\xff\xfe", b"null", b"[]", b'{"v":"1"}', b'{"v":1}', b"[" * 100_000])
def test_garbage_is_unreadable(payload: bytes) -> None:
    """What is no record says why, however deeply it is nested."""
    assert isinstance(decode_record("studio@mac", payload), Unreadable)


@given(st.binary() | JSON.map(json.dumps) | JSON.map(lambda value: json.dumps({"v": 1, "node": value})))
def test_no_payload_raises(payload: bytes | str) -> None:
    """Whatever stands in the hash, decoding it answers."""
    assert isinstance(decode_record("studio@mac", payload), Unreadable)


@given(st.sampled_from(sorted(VALUES)), JSON)
def test_a_field_of_another_type_never_passes(name: str, value: object) -> None:
    """A record either has the types that its readers rely on, or is unreadable."""
    found = decode_record("studio@mac", json.dumps(VALUES | {name: value}))
    if isinstance(found, WorkerRecord):
        assert all(isinstance(queue, str) for queue in found.queues)
        assert all(isinstance(count, int) for count in {**found.slots, **found.busy}.values())
        assert isinstance(found.hardware, dict)
        assert found.beat_at < float("inf")
        json.dumps(asdict(found))


@given(st.integers(0, 400))
def test_huge_numbers_are_unreadable(digits: int) -> None:
    """A time beyond what a float holds is no time."""
    found = decode_record("studio@mac", json.dumps(VALUES).replace('"beat_at": 0.0', f'"beat_at": 1{"0" * digits}'))
    assert isinstance(found, WorkerRecord) == (digits < 309)
