"""Refuses all pools but ours on the command line, with the reason."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from tasks.names import PACKAGE
from worker_config.tiers import QUEUES

if TYPE_CHECKING:
    from celery.worker import WorkController

#: Our pool, by the distribution's name and by the package's.
OURS = ("celery_mlx.worker.celery.pool:EnginePool", f"{PACKAGE}.worker.celery.pool:EnginePool")
WHY = {
    "prefork": "it would load the model once for each child process, and they could not share a batch",
    "processes": "it would load the model once for each child process, and they could not share a batch",
    "eventlet": "its green threads would stand still while an engine is waited for",
    "gevent": "its green threads would stand still while an engine is waited for",
    "solo": "it runs one request at a time and answers no remote control meanwhile",
    "threads": "it cannot cancel a request and ignores time limits (celery #9203)",
}


def refusal(sender: WorkController) -> str | None:
    """Return why this worker must not start; empty if it may, ``None`` if it is another application's business.

    ``worker_pool`` in the configuration beats ``-P`` without a word, so what was typed is looked at, not what Celery made
    of it.
    """
    is_ours = _path_of(sender.pool_cls) in OURS
    consumed = [queue for queue in sender.app.amqp.queues.consume_from if queue in QUEUES]
    if not is_ours and not consumed:
        return None
    typed = typed_pool(sys.argv) if _was_typed() else None
    if typed in WHY:
        return f"-P {typed} cannot run an engine: {WHY[typed]}; leave -P out"
    if not is_ours:
        return (
            f"this worker consumes {consumed[0]} with the pool {_path_of(sender.pool_cls)}: set worker_pool={OURS[0]!r}"
        )
    if sender.options.get("autoscale"):
        return "--autoscale cannot be used: slots follow from the hardware, and -c caps them; leave it out"
    return ""


def typed_pool(argv: list[str]) -> str | None:
    """The value of ``-P`` or ``--pool`` in a command line, in each way that it can be written."""
    for word, after in zip(argv, [*argv[1:], ""], strict=True):
        if word in ("-P", "--pool"):
            return after
        if word.startswith("--pool="):
            return word.removeprefix("--pool=")
        if word.startswith("-P"):
            return word.removeprefix("-P").removeprefix("=")
    return None


def _was_typed() -> bool:
    context = click.get_current_context(silent=True)
    source = context.get_parameter_source("pool") if context is not None else None
    return source is click.core.ParameterSource.COMMANDLINE


def _path_of(pool: Any) -> str:
    return pool if isinstance(pool, str) else f"{pool.__module__}:{pool.__qualname__}"
