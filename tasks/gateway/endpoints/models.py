"""``/v1/models``: the models that an API key may ask for."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tasks.errors import GenerationError
from tasks.messages.registry import WorkerRecord
from tasks.models.routing import tier_of
from tasks.registry import Registry
from worker_config.catalogue import ModelNotAllowed

if TYPE_CHECKING:
    import redis

    from tasks.gateway.records.access_key import AccessKey
    from worker_config.catalogue import Catalogue, ModelEntry

#: Models have no date here; clients want a number.
CREATED = 0


def list_models(client: redis.Redis, catalogue: Catalogue, key: AccessKey) -> list[dict[str, Any]]:
    """All models of the catalogue and those that workers have loaded, as far as the key may use them; loaded ones first.

    Raises:
        BrokerUnavailable: Redis cannot be reached.
    """
    loaded = loaded_models(client)
    names = dict.fromkeys([*sorted(loaded), *catalogue.models])
    entries = ((name, _entry(catalogue, name)) for name in names if key.allows(name))
    return [_described(name, entry, name in loaded) for name, entry in entries if entry is not None]


def find_model(client: redis.Redis, catalogue: Catalogue, name: str, key: AccessKey) -> dict[str, Any] | None:
    """One model; ``None`` if it is not allowed.

    Raises:
        BrokerUnavailable: Redis cannot be reached.
    """
    entry = _entry(catalogue, name)
    if entry is None or not key.allows(name):
        return None
    return _described(name, entry, name in loaded_models(client))


def loaded_models(client: redis.Redis) -> set[str]:
    """The names of the models that live workers have loaded."""
    reading = Registry(client).read()
    return {
        engine.model
        for record in reading.records
        if isinstance(record, WorkerRecord) and record.identity in reading.leases
        for engine in record.engines
        if engine.state == "ready"
    }


def _described(name: str, entry: ModelEntry, loaded: bool) -> dict[str, Any]:
    """A model in OpenAI's shape, with its tier and whether a worker has it loaded."""
    tier = None
    with suppress(GenerationError):
        tier = tier_of(entry).name
    return {
        "id": name,
        "object": "model",
        "created": CREATED,
        "owned_by": "celery-mlx",
        "tier": tier,
        "loaded": loaded,
    }


def _entry(catalogue: Catalogue, name: str) -> ModelEntry | None:
    try:
        return catalogue.resolve(name)
    except ModelNotAllowed:
        return None
