"""Garbage for decoders and workers: any JSON, and sound documents with something else in some of their places."""

from __future__ import annotations

import base64
import copy
import json
import os
from typing import Any

from hypothesis import strategies as st

#: How many malformed things a test draws; ``TEST_EXAMPLES=10000`` is what docs/reliability.md speaks of.
EXAMPLES = int(os.environ.get("TEST_EXAMPLES", "300"))

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
HEADERS = (
    *(
        "id",
        "task",
        "eta",
        "expires",
        "timelimit",
        "retries",
        "group",
        "root_id",
        "parent_id",
        "argsrepr",
        "kwargsrepr",
    ),
    *("shadow", "stamps", "stamped_headers", "compression", "origin", "group_index", "lang"),
)
PROPERTIES = ("correlation_id", "reply_to", "priority", "delivery_tag", "delivery_info", "body_encoding")
PARAMETERS = (
    *("prompt", "messages", "model", "temperature", "top_p", "stop", "seed", "logit_bias", "chat_template_kwargs"),
    *("metadata", "deadline", "keep_alive_s", "logprobs", "top_logprobs", "repetition_penalty", "presence_penalty"),
)


@st.composite
def mutated(draw: st.DrawFn, message: dict[str, Any]) -> dict[str, Any]:
    """A copy of this message with JSON of any kind in one to three of its places."""
    changed = copy.deepcopy(message)
    for _ in range(draw(st.integers(1, 3))):
        where = draw(st.sampled_from(["top", "headers", "properties", "body", "keywords", "options"]))
        value = draw(JSON)
        if where == "top":
            changed[draw(st.sampled_from(["body", "headers", "properties", "content-type", "content-encoding"]))] = (
                value
            )
        elif where in ("headers", "properties"):
            if isinstance(changed.get(where), dict):
                changed[where][draw(st.sampled_from(HEADERS if where == "headers" else PROPERTIES))] = value
        else:
            changed["body"] = draw(_bodies(where, value))
    return changed


@st.composite
def _bodies(draw: st.DrawFn, where: str, value: Any) -> str:
    body: list[Any] = [[], {"prompt": "x", "model": "fake:1", "max_tokens": 1}, {}]
    if where == "body":
        body[draw(st.integers(0, 2))] = value
    elif where == "keywords":
        body[1][draw(st.sampled_from(PARAMETERS))] = value
    else:
        body[2][draw(st.sampled_from(["callbacks", "errbacks", "chain", "chord", "other"]))] = value
    return base64.b64encode(json.dumps(body).encode()).decode()
