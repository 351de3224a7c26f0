"""The requests of a bulk job in Redis: sent in pipelines, collected by looking, and forgotten once they are written."""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from celery import states

from tasks.broker.inventory.withdraw import withdraw
from tasks.broker.queues.ledger import known, unattended
from tasks.broker.results import Backend
from tasks.broker.submission.pages import Refused
from tasks.broker.submission.sent import SENT
from tasks.broker.submission.submission import Submission
from tasks.client.answers.answer import Answer
from tasks.client.sending.redaction import redact
from tasks.errors import BrokerUnavailable, Cancelled, GenerationError, InvalidRequest
from tasks.names import GENERATE
from tasks.registry.values import text
from tasks.server import keys
from tasks.server.connection import connect, translated
from tasks.server.trouble import is_denied
from worker_config.celeryconfig import settings_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from celery import Celery

    from tasks.bulk.line import Line

#: Keys in one command.
PAGE = 500
#: Longer than a worker remembers what has ended (:data:`tasks.worker.attempts.recovery.KEEP_S`).
COLLECTED_S = 60


class Ended(NamedTuple):
    """How a request has ended."""

    task_id: str
    answer: Answer | None
    error: GenerationError | None


class Requests:
    """One job's way to Redis.

    Args:
        app: where requests are sent, and results stored.
        priority: that of all requests.

    Raises:
        InvalidRequest: the application's results are not where this project keeps them.
    """

    def __init__(self, app: Celery, priority: int) -> None:
        if not isinstance(app.backend, Backend):
            raise InvalidRequest(
                f"bulk reads results in Redis, and this application's result_backend is a {type(app.backend).__name__}: "
                "configure it with worker_config.celeryconfig.worker_options"
            )
        self._app = app
        self._settings = settings_of(app)
        self._backend: Any = app.backend
        self._priority = priority
        self._client = connect(app)
        self._results = connect(app.backend.where)
        self._queues: dict[str, str] = {}

    def queue_of(self, model: str | None) -> str:
        """The queue that requests for a model go to; for the default model where they name none.

        Raises:
            UnknownModel: nobody allows the model.
        """
        model = model or self._settings.default_model
        found = self._queues.get(model)
        if found is None:
            options = self._app.amqp.router.route({}, GENERATE, (), {"model": model}, self._app.tasks[GENERATE])
            queue = options.get("queue")
            found = self._queues[model] = self._app.conf.task_default_queue if queue is None else queue.name
        return found

    def send(self, requests: Mapping[str, tuple[str, Line]]) -> set[str]:
        """Queue requests: by id, the queue and the line. Those of them that are not queued now, because there is no room.

        Raises:
            GenerationError: Redis cannot be reached, or refuses for now.
        """
        submission = Submission(self._app)
        for task_id, (queue, line) in requests.items():
            shown = None if self._settings.show_prompts else redact(line.values)
            headers, properties, body, _ = self._app.amqp.as_task_v2(
                task_id, line.task, [], line.values, argsrepr="()", kwargsrepr=shown, reply_to=self._app.thread_oid
            )
            submission.add(body, headers, {**properties, "priority": self._priority}, queue, is_plain=True)
        try:
            submission.send(self._client)
        except Refused as refused:
            if refused.error.retryable and refused.error.code == "queue_full":
                return set(refused.unsent)
            raise refused.error from None
        return set()

    def ended(self, task_ids: Iterable[str]) -> list[Ended]:
        """Those of these requests that have ended, and how.

        Raises:
            BrokerUnavailable: Redis cannot be reached.
        """
        found = []
        for page in _pages(task_ids):
            with translated(f"reading {len(page)} results"):
                payloads: Any = self._results.mget([self._backend.get_key_for_task(task_id) for task_id in page])
            found += [
                ended
                for task_id, payload in zip(page, payloads, strict=True)
                if payload is not None and (ended := self._read(task_id, payload)) is not None
            ]
        return found

    def unknown(self, task_ids: Iterable[str]) -> set[str]:
        """Those of these requests that nobody knows: neither sent nor running nor ended, or lost with Redis's data.

        Raises:
            BrokerUnavailable: Redis cannot be reached.
        """
        ids = set(task_ids)
        unknown = ids - known(self._client, ids)
        return unknown - {ended.task_id for ended in self.ended(unknown)}

    def unattended(self, task_ids: Iterable[str]) -> set[str]:
        """Those of these requests that nobody works on and that have not ended, though they may have a journal.

        Without the right to read what workers hold there are none.

        Raises:
            BrokerUnavailable: Redis cannot be reached.
        """
        ids = set(task_ids)
        try:
            found = unattended(self._client, ids)
        except BrokerUnavailable as error:
            if error.__cause__ is not None and is_denied(error.__cause__):
                return set()
            raise
        return found - {ended.task_id for ended in self.ended(found)}

    def forget(self, task_ids: Iterable[str], *, mark: bool = True) -> None:
        """Delete what is left of requests that have ended. What this client may not delete expires.

        A worker that finds journals missing when Redis was restarted writes those of the last 30 s again. The marks tell it
        which ones were deleted on purpose.

        Args:
            task_ids: the requests.
            mark: whether they have just ended.

        Raises:
            BrokerUnavailable: Redis cannot be reached.
        """
        for page in _pages(task_ids):
            for task_id in page:
                SENT.forget(task_id)
            with suppress(GenerationError), translated(f"forgetting {len(page)} requests"):
                pipeline = self._client.pipeline(transaction=False)
                for task_id in page if mark else ():
                    pipeline.set(keys.collected(task_id), "", ex=COLLECTED_S)
                pipeline.delete(*(key(task_id) for task_id in page for key in (keys.stream, keys.request, keys.cancel)))
                pipeline.execute()
                self._results.delete(*(self._backend.get_key_for_task(task_id) for task_id in page))

    def withdraw(self, task_ids: Sequence[str]) -> None:
        """Take requests back: those that wait have never been, those that run are cancelled.

        Raises:
            BrokerUnavailable: Redis cannot be reached.
        """
        if task_ids:
            withdraw(self._app, task_ids)

    def withdraw_all(self, job_id: str) -> int:
        """Take back all requests of a job that wait, whose driver is gone; how many.

        Raises:
            BrokerUnavailable: Redis cannot be reached.
        """
        with translated(f"looking for the requests of job {job_id}"):
            found = [text(name) for name, _ in self._client.hscan_iter(keys.LEDGER, f"bulk-{job_id}-*", count=1000)]
        self.withdraw(found)
        return len(found)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        self._results.close()

    def _read(self, task_id: str, payload: bytes) -> Ended | None:
        # An answer is most of what comes: it needs no more than JSON.
        meta = json.loads(payload)
        status = meta.get("status")
        if status == states.SUCCESS:
            return Ended(task_id, Answer(meta["result"]), None)
        if status == states.REVOKED:
            return Ended(task_id, None, Cancelled("the request was cancelled"))
        if status != states.FAILURE:
            return None
        error = self._backend.decode_result(payload)["result"]
        if not isinstance(error, GenerationError):
            error = GenerationError(f"{type(error).__name__}: {error}")
        return Ended(task_id, None, error)


def _pages(task_ids: Iterable[str]) -> Iterator[list[str]]:
    ids = iter(task_ids)
    while page := list(islice(ids, PAGE)):
        yield page
