"""Celery's own options, made from the project's settings. ``app.config_from_object`` reads :func:`celery_options`.

Another application takes :func:`worker_options` alone: what a worker needs to run ``tasks.generate``, and nothing that
changes where that application's other tasks go.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from worker_config.redis_url import RedisUrl
from worker_config.settings import Settings, current_settings
from worker_config.tiers import QUEUES

DEFAULT_QUEUE = "celery"
#: The modules that Celery and kombu import, by the name that leads to them from every project.
BACKEND = "celery_mlx.broker.results:Backend"
#: The transport option that has an application's :class:`~worker_config.settings.Settings`: kombu hands it to each channel.
SETTINGS = "settings"
#: Celery's priorities on Redis: 0 (interactive, the default) is taken first, then 5, then 9 (batch). 3 and 6 are kombu's own
#: steps: a producer without our options puts its priorities 3 to 8 there, and nobody else would ever look.
PRIORITY_STEPS = [0, 3, 5, 6, 9]


def broker_options(settings: Settings) -> dict[str, Any]:
    """Return the places of messages and results, and the options of the connections to them."""
    url = RedisUrl.parse(settings.redis_url)
    sentinels = url.sentinel_options()
    return {
        **_address(url),
        "broker_transport": "celery_mlx.broker.transport:Transport",
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": {
            SETTINGS: settings,
            "priority_steps": PRIORITY_STEPS,
            "queue_order_strategy": "round_robin",
            "socket_keepalive": True,
            "socket_connect_timeout": settings.redis_timeout_s,
            "socket_timeout": settings.redis_timeout_s,
            **sentinels,
        },
        "redis_socket_keepalive": True,
        "redis_socket_connect_timeout": settings.redis_timeout_s,
        "redis_socket_timeout": settings.redis_timeout_s,
        # Once, on a new connection: an idle one may have been forgotten by a router.
        "redis_retry_on_timeout": True,
        "redis_max_connections": 256,
        "result_expires": settings.result_ttl_s,
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
    }


def settings_of(app: Any | None) -> Settings:
    """The settings that a Celery application was configured with.

    They are the environment's where the application took none of these options, and for ``None``: Celery calls a route, and
    kombu makes a channel, without saying for which application.
    """
    options = app.conf.broker_transport_options if app is not None else None
    found: Settings | None = (options or {}).get(SETTINGS)
    return found or current_settings()


def _address(url: RedisUrl) -> dict[str, Any]:
    """Return the address of Redis. Of several Sentinels kombu sees the first: for a list of URLs it takes its own transport."""
    if not url.sentinels:
        return {"broker_url": str(url), "result_backend": f"{BACKEND}+{url}"}
    first = RedisUrl(
        scheme="sentinel",
        sentinels=url.sentinels[:1],
        database=url.database,
        user=url.user,
        password=url.password,
    )
    tls = dict(url.tls) or None
    return {
        "broker_url": str(first),
        "result_backend": f"{BACKEND}+{first}",
        "result_backend_transport_options": url.sentinel_options(),
        **({"broker_use_ssl": tls, "redis_backend_use_ssl": tls} if tls else {}),
    }


def worker_options(settings: Settings) -> dict[str, Any]:
    """Return the options of a worker that runs ``tasks.generate``, in this application or in another one."""
    if lend := getattr(import_module("celery_mlx"), "lend_tasks", None):
        lend()  # a checkout beside a project that has a ``tasks`` of its own
    return {
        **broker_options(settings),
        # In the configuration because it beats -P there; tasks.worker refuses a pool that was typed.
        "worker_pool": "celery_mlx.worker.celery.pool:EnginePool",
        # 0 = no limit: the channel asks Redis only for queues that have room, which is exact where Celery's count is not
        # (after a reconnect 4 running tasks became 8 reserved ones).
        "worker_prefetch_multiplier": 0,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # Redis that is full, or read-only for a while, ends a fetch and not the worker.
        "broker_channel_error_retry": True,
        "worker_hijack_root_logger": True,
        "worker_log_format": "[%(asctime)s: %(levelname)s] %(message)s",
        "worker_task_log_format": "[%(asctime)s: %(levelname)s] %(message)s",
    }


def celery_options(settings: Settings) -> dict[str, Any]:
    """Everything the application ``tasks`` is configured with."""
    return {
        **worker_options(settings),
        "task_default_queue": DEFAULT_QUEUE,
        "task_queues": {name: {} for name in (*QUEUES, DEFAULT_QUEUE)},
        "task_routes": ("celery_mlx.models.routing.route_task",),
        "result_extended": False,
        # The sweep needs no schedule, and Celery's own scheduler ends beat where its file cannot be written.
        "beat_scheduler": "celery.beat:Scheduler",
    }
