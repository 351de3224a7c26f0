"""Whatever is written to a journal, a record or a log is JSON that every parser reads."""

from __future__ import annotations

import ast
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tasks
from tasks.messages import journal
from tasks.messages.encoding import to_canonical_json, to_compact_json, to_json, to_sorted_json
from tasks.messages.registry import WorkerRecord, encode_record

#: A message that came is written back as it came.
AS_IT_CAME = {"tasks/broker/channel/unacked.py"}


def strict(text: str) -> Any:
    """Parse JSON as other languages do."""

    def refuse(word: str) -> Any:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_null(number: float) -> None:
    """In a journal's entry, in a worker's record and anywhere else, however deep; all else stays."""
    logprobs = [{"id": 1, "token": "ü", "logprob": number, "top_logprobs": [{"logprob": -1.5}, {"logprob": number}]}]
    entry = strict(journal.encode(journal.Token(attempt=1, index=0, ids=[1], text="ü", logprobs=logprobs)))
    assert entry["logprobs"] == [
        {"id": 1, "token": "ü", "logprob": None, "top_logprobs": [{"logprob": -1.5}, {"logprob": None}]}
    ]
    record = WorkerRecord(node="a", boot="b", status="online", metrics={"ttft_ms": {"p50": number, "count": 3}})
    assert strict(encode_record(record))["metrics"] == {"ttft_ms": {"p50": None, "count": 3}}
    assert to_compact_json((number, "x", None, True, 1)) == '[null,"x",null,true,1]'
    assert to_json({"a": {1, 2}, "b": number}, default=list) == '{"a": [1, 2], "b": null}'


@given(st.text(), st.lists(st.integers(min_value=0)), st.integers(min_value=0), st.text())
def test_plain_tokens(text: str, ids: list[int], index: int, kind: str) -> None:
    """What most entries are is written without the encoder, and exactly as the encoder writes it."""
    token = journal.Token(attempt=2, index=index, ids=ids, text=text, kind=kind)
    fields = {"attempt": 2, "index": index, "ids": ids, "text": text, "choice": 0, "kind": kind, "logprobs": None}
    assert journal.encode(token) == to_compact_json({"v": 1, "type": "token", **fields})
    assert journal.decode(journal.encode(token)) == token


def test_the_same_text_for_equal_values() -> None:
    """As Python writes them with sorted keys."""
    value = {"b": [1, 2.5, math.inf, "ü\u2028\udc80", 10**30], "a": {"y": None, "x": (True, {})}}
    assert to_canonical_json(value) == to_json(value, sort_keys=True, separators=(",", ":"))
    assert to_sorted_json(value) == to_json(value, sort_keys=True, ensure_ascii=False)


def test_nothing_writes_json_in_another_way() -> None:
    """No module of the product calls json.dumps or makes an encoder without ``allow_nan=False``."""
    found = []
    root = Path(tasks.__file__).parent
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr in {"dumps", "dump", "JSONEncoder"} and ast.unparse(node.func.value) == "json":
                name = str(path.relative_to(root.parent))
                careful = any(word.arg == "allow_nan" and ast.unparse(word.value) == "False" for word in node.keywords)
                if not careful and name not in AS_IT_CAME:
                    found.append(f"{name}:{node.lineno}")
    assert not found
