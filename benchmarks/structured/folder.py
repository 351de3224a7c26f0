"""Schemas of a folder of JSON files: a schema per file, or one under ``schema``, as the MaskBench data has them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tasks.client.request.structure import MAX_CONSTRAINT_BYTES
from tasks.engine.constraint.parts import parts
from tasks.engine.constraint.schema import KNOWN
from tasks.messages.encoding import to_json

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator
    from pathlib import Path


def read(folder: Path, left_out: Counter[str]) -> Iterator[Any]:
    """The schemas of a folder and of the folders in it. ``left_out`` counts the files that no request can have, by reason."""
    for path in sorted(folder.rglob("*.json")):
        try:
            found = json.loads(path.read_text(encoding="utf-8-sig"))
        except ValueError:
            left_out["no JSON"] += 1
            continue
        schema = found["schema"] if isinstance(found, dict) and isinstance(found.get("schema"), dict) else found
        if not isinstance(schema, dict):
            left_out["no object"] += 1
        elif len(to_json(schema)) > MAX_CONSTRAINT_BYTES:
            left_out[f"more than {MAX_CONSTRAINT_BYTES} bytes"] += 1
        else:
            yield schema


def of_json_schema(schema: Any) -> Any:
    """The schema, changed in place, without keywords that JSON Schema does not have. A validator passes over these, too."""
    for _, part in list(parts(schema, "")):
        for name in [name for name in part if name not in KNOWN]:
            del part[name]
    return schema
