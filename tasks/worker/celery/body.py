"""The body of each task, on a thread of the pool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from celery.exceptions import Ignore

from tasks.broker.message.fingerprint import fingerprint, kept_s
from tasks.errors import GenerationError
from tasks.journal.items import Asks
from tasks.models.routing import queue_for_model
from tasks.worker.attempts.delivery import Delivery
from tasks.worker.attempts.job import current_job
from tasks.worker.attempts.run import Run
from tasks.worker.attempts.works import work_of
from tasks.worker.current import current_worker
from worker_config.catalogue import catalogue_of

if TYPE_CHECKING:
    from tasks.client.answers.answer import Answer
    from tasks.generate import GenerateTask
    from tasks.worker.worker import InferenceWorker


def run(task: GenerateTask, previous: Any, values: dict[str, Any]) -> Answer:
    """Answer one request; how it ends is in its journal before this returns or raises.

    Raises:
        GenerationError: it cannot be answered.
        Stopped: it was cancelled.
        Ignore: another worker answers it.
        Reject: this worker gives it back.
    """
    job = current_job()
    if job is None:
        _leave_to_the_fleet(task, values)
    worker = current_worker()
    if job.queue == task.app.conf.task_default_queue:
        _forward(task, worker, values)
    tag = str((task.request.properties or {}).get("delivery_tag", ""))
    delivery = Delivery(job, tag, Asks(fingerprint(previous, values), kept_s(worker.profile.settings)))
    return Run(worker.run_context, delivery, work_of(task.name)).answer(previous, values)


def _forward(task: GenerateTask, worker: InferenceWorker, values: dict[str, Any]) -> None:
    """Send a request on to its tier: its producer named no queue, and knows no tiers. A request that this worker serves stays."""
    profile = worker.profile
    model = str(values.get("model") or profile.settings.default_model)
    try:
        queue = queue_for_model(model, profile.catalogue, worker.tiers())
    except GenerationError:
        return  # the run on this worker reports what is wrong
    if queue not in profile.queues:
        _send_on(task, queue)


def _leave_to_the_fleet(task: GenerateTask, values: dict[str, Any]) -> NoReturn:
    """Send a request on that another application's worker has received, since that application has no route for it.

    Raises:
        GenerationError: nothing tells its tier.
        Ignore: it was sent on.
    """
    model = str(values.get("model") or task.settings.default_model)
    _send_on(task, queue_for_model(model, catalogue_of(task.settings), task.fleet.tiers))


def _send_on(task: GenerateTask, queue: str) -> NoReturn:
    request = task.request
    task.signature_from_request(request, request.args, request.kwargs, queue=queue).apply_async()
    raise Ignore
