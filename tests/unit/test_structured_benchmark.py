"""The benchmark of answers by schemas reads folders, and knows a wrong answer."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

from benchmarks.structured.__main__ import Asked, Tally
from benchmarks.structured.folder import of_json_schema, read
from tasks.client.request.structure import MAX_CONSTRAINT_BYTES
from tasks.messages.engine import Failed, Finished

if TYPE_CHECKING:
    from pathlib import Path


def test_a_folder_of_schemas(tmp_path: Path) -> None:
    """Schemas come from all files under it; what no request can have is counted by its reason."""
    files = {
        "a.json": '{"type": "null"}',
        "in/b.json": '\ufeff{"schema": {"type": "string"}, "tests": []}',
        "c.json": "{",
        "d.json": "[]",
        "e.json": json.dumps({"enum": ["x" * MAX_CONSTRAINT_BYTES]}),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    left_out = Counter[str]()
    assert list(read(tmp_path, left_out)) == [{"type": "null"}, {"type": "string"}]
    assert left_out == {"no JSON": 1, "no object": 1, f"more than {MAX_CONSTRAINT_BYTES} bytes": 1}


def test_keywords_of_others_are_dropped() -> None:
    """And nothing that a property or a value has for its name."""
    schema = {
        "handlers": {},
        "type": "object",
        "properties": {"handlers": {"insertionOrder": True, "const": {"handlers": 1}}},
    }
    assert of_json_schema(schema) == {"type": "object", "properties": {"handlers": {"const": {"handlers": 1}}}}


def ended(text: str, reason: str = "stop", *, schema: object = None) -> Asked:
    end = Finished("0", finish_reason=reason, prompt_tokens=1, cached_tokens=0, completion_tokens=2)  # type: ignore[arg-type]
    return Asked(schema or {"type": "integer"}, {}, started=True, ids=[1, 2], text=text, end=end)


def test_what_became_of_schemas() -> None:
    """Valid, invalid, cut off, refused before the first token, failed after it, and what Python's expressions do not read."""
    refused = Failed("0", "invalid_request", "response_format: #/a: not: cannot be enforced; leave it out")
    tally = Tally()
    for request in (
        ended("3"),
        ended('"three"'),
        ended("[", "length"),
        Asked({}, {}, end=refused),
        Asked({}, {}, started=True, end=refused),
        ended('"a"', schema={"type": "string", "pattern": r"^\p{L}$"}),
    ):
        tally.add(request)
    assert (tally.valid, len(tally.invalid), tally.cut_off, tally.tokens) == (1, 1, 1, 8)
    assert tally.refused == tally.failed == {"not: cannot be enforced": 1}
    assert tally.not_judged.total() == 1
    assert "1 valid, 1 invalid" in tally.report()
