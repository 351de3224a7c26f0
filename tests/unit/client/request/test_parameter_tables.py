"""The tables of parameters in docs/."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tasks.client.request import embedding, parameters, reranking
from tests.support import ROOT

if TYPE_CHECKING:
    from pydantic import BaseModel


@pytest.mark.parametrize(
    ("fields", "page"),
    [
        (parameters.Parameters, "api.md"),
        (embedding.Parameters, "embeddings.md"),
        (reranking.Parameters, "embeddings.md"),
    ],
)
def test_each_parameter_is_in_a_table(fields: type[BaseModel], page: str) -> None:
    """A field that a task takes is named in a row of its page."""
    rows = [line for line in (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    assert fields.model_fields.keys() - set(re.findall(r"`(\w+)`", "\n".join(rows))) == set()
