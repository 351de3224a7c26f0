"""``/v1/embeddings``: vectors of texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.client.request.embedding import normalise
from tasks.gateway.endpoints.order import Order, model_of

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "embd-"
#: The fields of the answer.
FIELDS = ("object", "data", "model", "usage")


def parse(body: Mapping[str, Any], default_model: str) -> Order:
    """Turn a body into an order; ``embed`` checks its fields.

    Raises:
        InvalidRequest: the model is no name.
    """
    values = normalise({**body, "model": model_of(body, default_model)})
    return Order(kind="embedding", model=values["model"], values=[values])
