"""Celery's Redis result backend, changed in three places. ``result_backend = "tasks.broker.results:Backend+redis://..."``.

1. **A producer subscribes to a result when it asks for it** (``get()``, a group's ``join()``), which Celery does anyway;
   ``then()`` looks for what is stored, too (``GenerateResult.then``). Celery's own backend subscribes at each
   call already: two commands more for each request, a subscription that stays for ever where nobody asks, and a process that
   hangs for 20 s at its end when Redis is gone by then.
2. **A request's result is stored, and its message acknowledged, in one script.** Celery reads the old result, writes the new
   one, and acknowledges later, on another thread, which was a fifth of a busy worker's time (py-spy); and a worker that died
   in between had its request delivered again for nothing.
3. **Who waits for a result lives through a restart of Redis** from the first moment. Celery's own look at what is stored already
   is the one step of ``get()`` that does not try again; and of a group in a group it looks for the inner group's id, under which
   nothing is ever stored.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from celery import states
from celery.backends.redis import RedisBackend, ResultConsumer

from tasks.broker import scripts
from tasks.broker.channel import Channel
from tasks.broker.qos import QoS
from tasks.names import GENERATE
from tasks.server import keys
from tasks.server.connection import endpoint
from tasks.server.script import Script

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.app.task import Context

ANSWER = Script(scripts.source("answer"))


class Consumer(ResultConsumer):
    """Hears of results."""

    def on_wait_for_pending(self, result: Any, **options: Any) -> None:
        """Look for what is stored already, as patiently as Celery does all that follows."""
        waiting = [leaf.id for leaf in leaves(result) if not leaf._cache]
        for meta in self._ensure(self._stored, (waiting,)):
            self.on_state_change(meta, None)

    def _stored(self, task_ids: Sequence[str]) -> list[dict[str, Any]]:
        found = self.backend.mget([self.backend.get_key_for_task(task_id) for task_id in task_ids]) if task_ids else []
        metas = [self.backend.decode_result(each) for each in found if each]
        return [meta for meta in metas if meta["status"] in states.READY_STATES]


def leaves(result: Any) -> list[Any]:
    """The results of single tasks that a result, a group or a group of groups is made of."""
    parts = getattr(result, "results", None)
    return [result] if parts is None else [leaf for part in parts for leaf in leaves(part)]


class Backend(RedisBackend):
    """What Celery's is to everybody, but for the places above."""

    ResultConsumer = Consumer

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Nothing: asking for a result subscribes to it."""

    @cached_property
    def _is_brokers(self) -> bool:
        """Whether results are where messages are, so that one script can do both."""
        return endpoint(str(self.url)).url == endpoint(self.app).url

    def _store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Context | None = None,
        **options: Any,
    ) -> Any:
        tag = _delivery_tag(request, state)
        if Channel.scripts is None or not tag or state not in states.READY_STATES or not self._is_brokers:
            return super()._store_result(task_id, result, state, traceback=traceback, request=request, **options)
        meta = self._get_result_meta(result=result, state=state, traceback=traceback, request=request)
        meta["task_id"] = task_id
        life_s = self.failure_expires if state == states.FAILURE else self.expires
        held = (keys.unacked(Channel.identity), keys.unacked_index(Channel.identity))
        names = (self.get_key_for_task(task_id), *held)
        self.ensure(ANSWER, (Channel.scripts, names, (self.encode(meta), int(life_s or 0), tag)))
        QoS.answered.add(tag)
        return result


def _delivery_tag(request: Context | None, state: str) -> str:
    """Of a generation whose end is its result; empty for all else.

    After it has stored a result Celery counts a chord's part and, of a failure, tells the rest of a chain and errbacks: until
    then the message is held.
    """
    if request is None or request.task != GENERATE or request.chord:
        return ""
    if state != states.SUCCESS and (request.chain or request.errbacks):
        return ""
    return str((request.properties or {}).get("delivery_tag") or "")
