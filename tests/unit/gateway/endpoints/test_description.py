"""The gateway's description in OpenAPI says what the code takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tasks.client.request.compatibility import IGNORED
from tasks.gateway.batches.batch_routes import FIELDS
from tasks.gateway.endpoints import description, fields
from tasks.gateway.endpoints.description import describe
from tasks.gateway.endpoints.fields import treatment

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.mark.parametrize(
    ("described", "shaped"),
    [
        (description.CHAT, fields.CHAT),
        (description.COMPLETIONS, fields.COMPLETIONS),
        (description.RESPONSES, fields.RESPONSES),
    ],
)
def test_fields_that_the_gateway_reads_are_described(
    described: Mapping[str, object], shaped: Mapping[str, str]
) -> None:
    """All of them, and none that is refused."""
    assert set(described) == {name for name in shaped if treatment(name, shaped)[0] == "answered"}


def test_a_batch_has_the_fields_that_are_described() -> None:
    """Others are refused."""
    assert set(description.BATCH) == FIELDS


def test_bodies_are_those_of_the_models() -> None:
    """Parameters of ``generate`` are there with their bounds, ignored fields without; whatever is referred to is there."""
    made = describe([("POST", "/v1/chat/completions", "chat"), ("GET", "/v1/models/{model:path}", "a model")])
    body = made["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"]["top_p"]["maximum"] == 1
    assert set(IGNORED) <= set(body["properties"])
    assert "prompt" not in body["properties"]
    named = {part.partition('"')[0] for part in str(made).replace("'", '"').split("#/components/schemas/")[1:]}
    assert named <= set(made["components"]["schemas"])
    (parameter,) = made["paths"]["/v1/models/{model}"]["get"]["parameters"]
    assert parameter["name"] == "model"
