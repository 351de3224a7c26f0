"""One gateway, put together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.gateway.access import Access
from tasks.gateway.answering import Service
from tasks.gateway.application import Application
from tasks.gateway.background import Background
from tasks.gateway.closing import Closing
from tasks.gateway.desk import Desk
from tasks.gateway.metrics import Metrics
from tasks.gateway.store import Store

if TYPE_CHECKING:
    import redis
    from starlette.applications import Starlette

    from tasks.embed import EmbedTask
    from tasks.generate import GenerateTask


@dataclass(slots=True, frozen=True, kw_only=True)
class Doors:
    """Who is let in. ``is_local``: it listens on loopback alone; ``needs_no_key``: anybody, whatever keys there are."""

    is_local: bool
    needs_no_key: bool


@dataclass(slots=True, frozen=True)
class Gateway:
    """An application and what ends it."""

    application: Starlette
    closing: Closing


def make_gateway(generate: GenerateTask, embed: EmbedTask, client: redis.Redis, doors: Doors, wait_s: float) -> Gateway:
    """A gateway to these tasks, whose Redis this client reaches."""
    store, closing = Store(client), Closing()
    access = Access(store, is_open=doors.is_local, needs_no_key=doors.needs_no_key, is_local=doors.is_local)
    desk = Desk(generate, embed, store)
    service = Service(desk, Background(desk), closing, Metrics(), wait_s)
    return Gateway(Application(service, access, client).starlette(), closing)
