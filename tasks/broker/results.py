"""Celery's Redis result backend, changed in seven places. ``result_backend = "tasks.broker.results:Backend+redis://..."``.

1. **A caller listens to results while it waits for them**, and looks for them where it hears nothing
   (:mod:`tasks.broker.waiting.waiting`), on the connections that streams are read with (:mod:`tasks.server.subscription`). Celery
   subscribes to each result that is sent: a subscription stays for ever where nobody asks, a process hangs for 20 s at its end
   when Redis is gone by then, and a connection that died without a word has ``get()`` wait for ever.
2. **A request's result is stored, and its message acknowledged, in one script.** Celery reads the old result, writes the new one,
   and acknowledges later, on another thread; a worker that died in between had its request delivered again for nothing. The
   script looks for the end of the journal first: a Redis that has come back older than it was may have lost it meanwhile.
3. **No call of a producer waits for ever** for a reply: each is bounded, and tried again on a new connection.
4. **A request that runs is STARTED**, which its journal says; nothing is stored for it.
5. **A request whose result cannot be stored goes back to its queue.** Celery acknowledges it: callers would wait for ever.
6. **A chord that cannot be sent is one error**, :class:`tasks.errors.BrokerUnavailable`, however few members it has.
7. **A result is not replaced by the RETRY of an earlier try.** Celery sends the next try first, and stores RETRY afterwards. On
   another thread or worker that try may have ended by then, and its callers would wait for ever.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from celery import states
from celery.backends.redis import RedisBackend
from celery.exceptions import Reject
from kombu.exceptions import DecodeError
from kombu.serialization import loads

from tasks.broker import scripts
from tasks.broker.channel.holding import holding_of
from tasks.broker.submission.sending import sending
from tasks.broker.waiting.result_consumer import ResultConsumer
from tasks.broker.waiting.waiting import has_come, meta_of
from tasks.errors import GenerationError, JournalFailed
from tasks.journal.claims import has_begun
from tasks.names import is_ours
from tasks.server import keys
from tasks.server.connection import Endpoint, endpoint
from tasks.server.pool import Pool
from tasks.server.script import Script
from tasks.server.sentinel import through_sentinel
from worker_config.celeryconfig import settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery.app.task import Context
    from redis.client import Pipeline

    from tasks.broker.channel.holding import Holding

logger = logging.getLogger(__name__)

ANSWER = Script(scripts.source("answer"))
#: The module of our errors in a stored result, and its name in earlier ones.
ERRORS, OLD_ERRORS = "celery_mlx.errors", "tasks.errors"


class Backend(RedisBackend):
    """Celery's backend, but for the places above."""

    ResultConsumer = ResultConsumer
    connparams: dict[str, Any]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # One for all threads of an application. With one for each a thread's first request took 1.4 ms of processor time more,
        # and left a client and a pool to garbage collections.
        self.thread_safe = True
        if self._transport_options.get("sentinels"):
            self.connparams = through_sentinel(self.connparams, self._transport_options)

    def prepare_exception(self, exc: BaseException, serializer: str | None = None) -> Any:
        """Celery's, with the distribution's name for our errors, whatever this process calls the package."""
        prepared = super().prepare_exception(exc, serializer)
        if isinstance(exc, GenerationError) and isinstance(prepared, dict):
            prepared["exc_module"] = ERRORS
        return prepared

    def exception_to_python(self, exc: Any) -> Any:
        """Celery's, which looks for the class by the name that the module has here."""
        if isinstance(exc, dict):
            module = exc.get("exc_module")
            if module == ERRORS or (module == OLD_ERRORS and module not in sys.modules):
                exc = {**exc, "exc_module": GenerationError.__module__}
        return super().exception_to_python(exc)

    def decode(self, payload: Any) -> Any:
        """Celery's; what the fleet stores is JSON, also where the application's own results are something else."""
        if self.serializer != "json" and bytes(payload or b"").startswith(b"{"):
            with suppress(DecodeError):  # somebody's YAML may begin like this
                return loads(payload, "application/json", "utf-8", accept={"application/json"})
        return super().decode(payload)

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """Celery's. Of a chord with one member this comes before the request: its errors are those of ``delay``."""
        with sending(self.app):
            super().set_chord_size(group_id, chord_size)

    def get_task_meta(self, task_id: str, cache: bool = True) -> dict[str, Any]:
        """Celery's; a request that a worker has claimed is ``STARTED``, which its journal knows without another write."""
        meta: dict[str, Any] = super().get_task_meta(task_id, cache=cache)
        if meta["status"] == states.PENDING and self.is_brokers and self.ensure(has_begun, (self.client, task_id)):
            return {**meta, "status": states.STARTED}
        return meta

    def on_task_call(self, *_: Any) -> None:
        """Nothing: each wait listens for itself."""

    @cached_property
    def broker(self) -> Endpoint:
        """The server that messages and journals are on."""
        return endpoint(self.app)

    @cached_property
    def where(self) -> Endpoint:
        """The server that results are on."""
        found = endpoint(str(self.url), self._transport_options)
        if found.is_same_server(self.broker):
            return self.broker
        tls = self.app.conf.redis_backend_use_ssl
        options = tuple(sorted(tls.items())) if isinstance(tls, dict) else ()
        return Endpoint(found.url, options, self.broker.patience)

    @cached_property
    def is_brokers(self) -> bool:
        """Whether results are where messages are, so that one script can do both."""
        return self.where == self.broker

    @property
    def retry_policy(self) -> dict[str, Any]:
        """Celery's, which is for so many tries, however long one takes. A producer's are over after a while."""
        policy: dict[str, Any] = super().retry_policy
        if holding_of(self.app.conf.broker_transport_options) is None:
            policy["timeout"] = 2 * settings_of(self.app).redis_timeout_s
        return policy

    def iter_native(self, result: Any, no_ack: bool = True, **options: Any) -> Iterator[tuple[str, Any]]:
        """Each member of a group once it has come."""
        self._ensure_not_eager()
        waiting = list(result.results)
        for _ in self._wait_for_pending(result, no_ack=no_ack, **options):
            come = [member for member in waiting if has_come(member)]
            waiting = [member for member in waiting if member not in come]
            yield from ((member.id, meta_of(member)) for member in come)
        yield from ((member.id, meta_of(member)) for member in waiting)

    def remove_pending_result(self, result: Any) -> Any:
        """Celery's, which every result calls as it is deleted. There is nothing to do for one that nobody waits for, and for the
        last ones of a process that ends there is nothing left to do it with.
        """
        if sys.is_finalizing() or not any(result.id in pending for pending in self._pending_results):
            return result
        return super().remove_pending_result(result)

    def _set_with_state(self, key: Any, value: Any, state: str) -> Any:
        if state == states.RETRY:
            return self.ensure(self._set_unless_ended, (key, value))
        return super()._set_with_state(key, value, state)

    def _set_unless_ended(self, key: Any, value: Any) -> None:
        def write(pipeline: Pipeline) -> None:
            stored: Any = pipeline.get(key)
            pipeline.multi()
            if stored is None or self.decode(stored)["status"] not in states.READY_STATES:
                pipeline.set(key, value, ex=int(self.expires or 0) or None)
                pipeline.publish(key, value)

        self.client.transaction(write, key)

    def _get_pool(self, **params: Any) -> Any:
        return Pool(**params)

    def _store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Context | None = None,
        **options: Any,
    ) -> Any:
        holding = holding_of(self.app.conf.broker_transport_options)
        if holding is None or request is None or not is_ours(request.task) or state not in states.READY_STATES:
            return super()._store_result(task_id, result, state, traceback=traceback, request=request, **options)
        try:
            if not self.is_brokers:
                return super()._store_result(task_id, result, state, traceback=traceback, request=request, **options)
            meta = self._get_result_meta(result, state, traceback, request)
            self._answer(holding, _delivery_tag(request, state), task_id, meta)
        except Exception as error:
            if state == states.REVOKED:
                raise
            raise Reject(f"the result cannot be stored: {error}", requeue=True) from error
        return result

    def _answer(self, holding: Holding, tag: str, task_id: str, meta: dict[str, Any]) -> None:
        """Store a result, and forget the message, if it has a tag; write the end of the journal first where Redis has lost it.

        Raises:
            JournalFailed: it has lost the claim as well, and another worker has made one.
        """
        life_s = self.failure_expires if meta["status"] == states.FAILURE else self.expires
        held = (keys.unacked(holding.identity), keys.unacked_index(holding.identity))
        names = (self.get_key_for_task(task_id), *held, keys.stream(task_id))
        answer = (self.encode({**meta, "task_id": task_id}), int(life_s or 0), tag)
        journals = holding.journals
        last_id = journals.last_id(task_id) if journals is not None else ""
        for known_id in (last_id, last_id, ""):  # a journal that cannot be kept does not keep its answer back
            is_stored = self.ensure(ANSWER, (holding.scripts, names, (*answer, known_id)))
            if is_stored or journals is None:
                break
            logger.warning("Redis had lost the end of request %s before its result was stored", task_id)
            if not journals.restore(task_id):
                raise JournalFailed(f"request {task_id}: Redis had lost its journal, and another worker has claimed it")
        if tag:
            holding.answered.add(tag)


def _delivery_tag(request: Context, state: str) -> str:
    """Of a generation whose end is its result; empty for all else.

    After it has stored a result Celery counts a chord's part and, of a failure, tells the rest of a chain and errbacks: until
    then the message is held.
    """
    if request.chord:
        return ""
    if state != states.SUCCESS and (request.chain or request.errbacks):
        return ""
    return str((request.properties or {}).get("delivery_tag") or "")
