"""One gateway, put together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.gateway.access.access import Access
from tasks.gateway.answers.answering import Service
from tasks.gateway.answers.background import Background
from tasks.gateway.answers.desk import Desk
from tasks.gateway.answers.metrics import Metrics
from tasks.gateway.answers.revocation import Revocation
from tasks.gateway.application import Application
from tasks.gateway.batches.bulk import make_bulk
from tasks.gateway.connection.closing import Closing
from tasks.gateway.connection.outermost import Outermost
from tasks.gateway.records.store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping

    import redis

    from tasks.gateway.access.access import AccessRules
    from tasks.generate import GenerateTask
    from worker_config.settings import Settings


@dataclass(slots=True, frozen=True)
class Gateway:
    """An application, and the object that ends it."""

    application: Outermost
    closing: Closing


def make_gateway(
    generate: GenerateTask,
    others: Mapping[str, GenerateTask],
    client: redis.Redis,
    rules: AccessRules,
    settings: Settings,
) -> Gateway:
    """A gateway to ``generate`` and the tasks of other kinds of orders, whose Redis this client reaches."""
    store, closing = Store(client, settings.result_ttl_s), Closing()
    access = Access(store, rules)
    desk = Desk(generate, others, store)
    service = Service(desk, Background(desk), closing, Metrics(), settings.gateway_wait_s, settings.gateway_grace_s)
    bulk = make_bulk(generate.app, store, settings)
    application = Application(service, access, Revocation(store, desk), bulk, client, settings)
    return Gateway(Outermost(application.starlette(rules.origins)), closing)
