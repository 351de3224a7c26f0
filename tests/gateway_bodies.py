"""Bodies of requests for tests: a right one of each endpoint, in which one or two things are anything at all."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tasks.gateway.endpoints.description import describe

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
EMBEDDINGS, RERANK, BATCHES = "/v1/embeddings", "/v1/rerank", "/v1/batches"
#: A request that is answered. Its length is left alone: others would only take long.
RIGHT: dict[str, dict[str, Any]] = {
    CHAT: {"model": "fake:1", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2},
    COMPLETIONS: {"model": "fake:1", "prompt": "hello", "max_tokens": 2},
    RESPONSES: {"model": "fake:1", "input": "hello", "max_output_tokens": 2},
    EMBEDDINGS: {"model": "fake:1:dimensions=2", "input": ["hello"]},
    RERANK: {"model": "fake:1:ranks=1", "query": "hello", "documents": ["hello"]},
    BATCHES: {"input_file_id": "file-1", "endpoint": CHAT, "completion_window": "24h"},
}
#: Fields whose right values are answered with 503 or 504, or take long.
LEFT_ALONE = frozenset(
    {"deadline", "require_worker", "max_tokens", "max_completion_tokens", "max_output_tokens", "model"}
)

_SCALARS = (
    st.none() | st.booleans() | st.integers(-3, 40) | st.floats(-2, 2) | st.sampled_from([1e400, 10**30])
    | st.text(max_size=8) | st.sampled_from(["auto", "user", "text", "function", "json_schema", "\ud800", "\x00"])
)  # fmt: skip
_NAMES = st.sampled_from(["type", "role", "content", "text", "name", "function", "schema", "id", "seconds"]) | st.text(
    max_size=4
)
ANYTHING = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=6,
)


def fields_of(path: str) -> list[str]:
    """The fields that the gateway describes for an endpoint, but for those that are left alone."""
    operation = describe([("POST", path, "")])["paths"][path]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    return sorted({*schema["properties"]} - LEFT_ALONE)


@st.composite
def bodies(draw: st.DrawFn) -> tuple[str, Any]:
    """An endpoint, and a body for it."""
    path = draw(st.sampled_from(sorted(RIGHT)))
    names = st.sampled_from(fields_of(path)) | st.text(max_size=6).filter(lambda name: name not in LEFT_ALONE)
    return path, {**RIGHT[path], **draw(st.dictionaries(names, ANYTHING, min_size=1, max_size=2))}
