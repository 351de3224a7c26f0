"""Celery's signals, each one call on the worker of this process. :func:`prepare` is where a worker process enters."""

from __future__ import annotations

import gc
import logging
import os
import select
import signal
import warnings
from contextlib import suppress
from dataclasses import fields, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click
from celery import signals
from celery.utils.sysinfo import is_auto_concurrency

from tasks.errors import BrokerUnavailable, refuse
from tasks.hardware import detect
from tasks.messages.identifier import IDENTIFIER, is_identifier
from tasks.models.capabilities import capabilities
from tasks.names import OURS, PACKAGE, has_others, require_own
from tasks.registry import DuplicateWorker
from tasks.server.requirements import WORKER, require_server
from tasks.worker.celery import logs, mailbox
from tasks.worker.celery.orphans import RestoreOrphans
from tasks.worker.celery.pool_choice import refusal
from tasks.worker.celery.ready_line import ready_line
from tasks.worker.current import active_worker, current_worker, set_worker
from tasks.worker.loop import CeleryLoop
from tasks.worker.profile.capacity import Capacity
from tasks.worker.profile.equipment import Unequipped, require_equipment
from tasks.worker.profile.profile import Profile
from tasks.worker.profile.slots import slots_of
from tasks.worker.worker import InferenceWorker
from worker_config.catalogue import catalogue_of
from worker_config.celeryconfig import SETTINGS, settings_of
from worker_config.environment import SettingError
from worker_config.settings import Settings, environment_with, read_settings, variable_name
from worker_config.tiers import QUEUES

if TYPE_CHECKING:
    from celery import Celery
    from celery.worker import WorkController
    from celery.worker.consumer import Consumer

    from tasks.hardware import Hardware

logger = logging.getLogger(__name__)

STDOUT = 1
#: The settings that are options of ``celery -A tasks worker`` too (:mod:`tasks.celery`).
TYPED = ("models", "chip", "gpu_cores", "memory_gb")


def prepare(app: Celery) -> None:
    """Connect the signals; called by Celery before a worker that includes ``tasks.generate`` is set up."""
    import_module(".control", __package__)  # registers its commands
    import_module(
        ".body", __package__
    )  # at the first request its files may be gone, where the package is being replaced
    logs.connect(settings_of(app))
    signals.worker_init.connect(_on_worker_init)
    signals.worker_ready.connect(_on_worker_ready)
    signals.heartbeat_sent.connect(_on_heartbeat_sent)
    signals.worker_shutdown.connect(_on_worker_shutdown)


def _on_worker_init(sender: WorkController, **_: Any) -> None:
    """Decide on the worker's profile, before Celery builds its parts and makes its first connection."""
    try:
        for name in sorted(OURS):
            require_own(sender.app, name)
        refused = refusal(sender)
        if refused is None:
            return
        if refused:
            refuse(os.EX_CONFIG, refused, "Wrong pool")
        if not is_identifier(sender.hostname):  # it becomes a key, and a word in lines of a log
            refuse(os.EX_CONFIG, f"-n {sender.hostname!r:.80}: use {IDENTIFIER}, as in one@%h", "A name that is taken")
        worker = _make_worker(sender, _settings(sender))
        set_worker(worker)
    except SettingError as error:
        refuse(os.EX_CONFIG, str(error), "A setting is wrong")
    except Unequipped as error:
        refuse(os.EX_UNAVAILABLE if error.passing else os.EX_CONFIG, str(error), error.entry)
    except BrokerUnavailable as error:
        refuse(error.exit_status, str(error), error.entry)
    except Exception:
        # Celery would go on with half a worker.
        logger.exception("the worker cannot be set up; please report this")
        raise SystemExit(os.EX_SOFTWARE) from None
    sender.app.steps["consumer"].add(RestoreOrphans)
    sender.concurrency = worker.profile.capacity.slots.total
    # Celery's banner is 25 lines. Our line of a worker that is ready says what matters of them, except which other tasks it has.
    sender.quiet = sender.quiet or not has_others(sender.app.tasks)
    if not _is_typed("loglevel"):
        sender.loglevel = logging.INFO  # at Celery's own default a worker says nothing, not even that it is ready
    sender.consumer_cls = f"{PACKAGE}.worker.celery.consumer:Consumer"
    sender.app.control.mailbox.node_cls = mailbox.Node
    sender.app.conf.broker_transport_options.update(worker.holding.transport_options())
    # Gossip grows with the square of the fleet, and mingle waits a second for answers that the journal gives.
    sender.options.update(heartbeat_interval=5, without_gossip=True, without_mingle=True)


def _settings(sender: WorkController) -> Settings:
    """The application's settings; those that were typed behind ``celery -A tasks worker`` are the application's from now on."""
    settings = settings_of(sender.app)
    typed = {name: sender.options[name] for name in TYPED if sender.options.get(name) is not None}
    if typed:
        variables = {field_.name: variable_name(field_) for field_ in fields(Settings)}
        read = read_settings(environment_with(**{variables[name]: text for name, text in typed.items()}))
        settings = replace(settings, **{name: getattr(read, name) for name in typed})
        sender.app.conf.broker_transport_options[SETTINGS] = settings
    return settings


def _make_worker(sender: WorkController, settings: Settings) -> InferenceWorker:
    app, hardware, catalogue = sender.app, detect(settings), catalogue_of(settings)
    require_server(app, WORKER)
    require_equipment(settings, catalogue, hardware)
    queues = _queues(app, hardware)
    slots = slots_of(hardware, queues, _typed_concurrency(sender))
    profile = Profile(settings, catalogue, sender.hostname, queues, Capacity.of(hardware, slots))
    worker = InferenceWorker(app, profile, CeleryLoop())
    app.amqp.queues.select(profile.queues)
    return worker


def _queues(app: Celery, hardware: Hardware) -> list[str]:
    """Return the queues that ``-Q`` names; else every tier that the hardware supports, and the application's other queues."""
    typed = app.amqp.queues._consume_from
    if typed is not None:
        odd = [name for name in typed if name != name.strip() or not name]
        if odd:
            refuse(
                os.EX_CONFIG,
                f"-Q {','.join(typed)!r}: {odd[0]!r} is not a queue: write names, and commas without spaces",
                "An unknown tier",
            )
        unknown = [name for name in typed if name.startswith("tier-") and name not in QUEUES]
        if unknown:
            refuse(
                os.EX_CONFIG,
                f"-Q {','.join(typed)}: no tier has the queue {unknown[0]!r}; they are {', '.join(QUEUES)}",
                "An unknown tier",
            )
        return list(typed)
    offers = capabilities(hardware).tiers
    others = [name for name in app.amqp.queues if name not in QUEUES]
    return [*(offer.tier.queue for offer in offers), *others]


def _typed_concurrency(sender: WorkController) -> int | None:
    """``-c``, or the application's setting; Celery's default, 0 and ``auto`` are the number of CPUs, which says nothing here."""
    typed = click.get_current_context().params["concurrency"] if _is_typed("concurrency") else None
    concurrency = typed or sender.app.conf.worker_concurrency
    return int(sender.concurrency) if concurrency and not is_auto_concurrency(concurrency) else None


def _is_typed(option: str) -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and context.get_parameter_source(option) is click.core.ParameterSource.COMMANDLINE


def _on_worker_ready(sender: Consumer, **_: Any) -> None:
    """The consumer is connected, and about to fetch. Celery says this once; a lost connection is repaired by Celery itself."""
    worker = active_worker()
    if worker is None:
        return
    # At each lost connection Celery says, in eight lines, that what runs is redelivered. Here it is not. Celery's own filter for
    # such warnings is set with the log.
    warnings.filterwarnings("ignore", message=r"\s*In Celery 5\.1 we introduced an optional breaking change")
    worker.loop.attach(sender, worker.holding)
    _freeze()
    # Celery's loop subscribes to remote control at the end of its first turn, and commands of before are lost. So nobody sees the
    # worker until the second turn, and one that is refused for its name has fetched nothing.
    worker.room.close()
    sender.hub.call_soon(lambda: sender.hub.call_soon(lambda: _begin(worker)))


def _begin(worker: InferenceWorker) -> None:
    """Register, and begin to fetch."""
    worker.room.reopen()
    try:
        worker.start()
    except DuplicateWorker as error:
        set_worker(None)
        worker.stop()
        refuse(os.EX_CONFIG, str(error), "A name that is taken")
    line, values = ready_line(worker.profile)
    logger.info(line, extra={"fields": values})
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _on_term)
    signal.signal(signal.SIGQUIT, _on_quit)


def _freeze() -> None:
    """Freeze the objects that start-up has made: a full garbage collection visits them for 30 ms, in which nothing streams."""
    gc.collect()
    gc.freeze()


def _on_term(*_: Any) -> None:
    """Drain at the first signal, and requeue at the second one."""
    current_worker().drain.leave()
    # Standard output may be closed, full, or in the middle of a write that this signal has interrupted.
    with suppress(OSError):
        if select.select([], [STDOUT], [], 0)[1]:
            os.write(STDOUT, b"worker: draining: running requests go on; a second signal gives them to other workers\n")


def _on_quit(*_: Any) -> None:
    """Requeue at once."""
    current_worker().drain.leave_now()


def _on_heartbeat_sent(**_: Any) -> None:
    worker = active_worker()
    if worker is not None:
        worker.keeper.loop_alive()


def _on_worker_shutdown(**_: Any) -> None:
    worker = active_worker()
    if worker is not None:
        set_worker(None)
        worker.stop()
        logger.info("%s has stopped", worker.profile.node)
