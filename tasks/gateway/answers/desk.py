"""Takes orders within the limits of their key, sends them, finds them again, cancels them and counts their cost."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from celery import group

from tasks.client.reader.mailbox import Mailbox
from tasks.errors import GenerationError, InvalidRequest
from tasks.gateway.access.limits import headers_of, refuse_exceeded
from tasks.gateway.answers.following import Following
from tasks.gateway.connection.refusal import Refusal
from tasks.gateway.endpoints.fields import as_called
from tasks.gateway.records.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tasks.broker.queues.limits import Position
    from tasks.client.reader.status import RequestStatus
    from tasks.client.result import GenerateResult
    from tasks.gateway.connection.bell import Bell
    from tasks.gateway.endpoints.order import Order
    from tasks.gateway.endpoints.pieces import Choice
    from tasks.gateway.records.access_key import AccessKey
    from tasks.gateway.records.store import Store
    from tasks.generate import GenerateTask

logger = logging.getLogger(__name__)

#: How long, and how many, requests that have ended are remembered: Redis may come back without its last writes.
KEEP_S = 40.0
KEEP_MOST = 10_000
#: Kinds of requests whose journals are answers. Vectors, scores and batches have none.
READ_AGAIN = frozenset({"chat", "completion", "response"})


@dataclass(slots=True, frozen=True, eq=False)
class Ticket:
    """A request that was sent, and whose answer this gateway gives. ``headers`` say what its key has left.

    ``reader`` counts those that have gone on with its stream; 0 is the client that has sent it.
    """

    record: Record
    key: AccessKey
    results: Sequence[GenerateResult]
    headers: dict[str, str] = field(default_factory=dict)
    reader: int = 0


class Ended(NamedTuple):
    """A request that has ended, the time, and its cost in tokens."""

    at: float
    record: Record
    key: AccessKey
    prompt: int
    completion: int


class Desk:
    """Takes requests.

    Args:
        generate: the task that makes text.
        others: the tasks of other kinds of orders.
        store: the gateways' records in Redis.
    """

    def __init__(self, generate: GenerateTask, others: Mapping[str, GenerateTask], store: Store) -> None:
        self._generate = generate
        self._others = others
        self._store = store
        self._mailbox = Mailbox()
        #: The answers that are being given, and the function that ends each if its API key is revoked.
        self.open: dict[Ticket, Callable[[], object]] = {}
        self._ended: deque[Ended] = deque(maxlen=KEEP_MOST)

    async def take(self, order: Order, key: AccessKey, prefix: str, asked_priority: int | None) -> Ticket:
        """Send the requests of an order.

        Raises:
            Refusal: its key may not use the model, or has used up its limits.
            GenerationError: it cannot be sent.
        """
        if not key.allows(order.model):
            raise Refusal(
                403,
                f"model={order.model!r:.80}: this API key may not use it; it may use {', '.join(key.models)}",
                "model_not_allowed",
                param="model",
            )
        record = Record(
            id=f"{prefix}{uuid.uuid4().hex}",
            kind=order.kind,
            model=order.model,
            created=int(time.time()),
            choices=len(order.values),
            include_usage=order.include_usage,
            background=order.background,
            owner=key.id,
            reserved=order.tokens,
            echo=order.echo,
        )
        allowance = await asyncio.to_thread(self._store.admit, record, key)
        refuse_exceeded(allowance, key)
        try:
            await self._send(order, record, key.most_urgent(asked_priority))
        except BaseException as error:
            await asyncio.shield(asyncio.to_thread(self._store.charge, record, key, 0, 0))
            if isinstance(error, InvalidRequest):
                raise as_called(error, order.kind) from None
            raise
        return self._ticket(record, key, headers_of(allowance, key))

    async def find(self, request_id: str, key: AccessKey) -> Ticket:
        """A request that was sent before, by this gateway or another one.

        Raises:
            Refusal: nobody knows it, or it is another key's.
            BrokerUnavailable: Redis cannot be reached.
        """
        record = await asyncio.to_thread(self._store.record, request_id) or self._own_record(request_id)
        if record is None or record.owner != key.id or record.kind not in READ_AGAIN:
            raise Refusal(404, f"nothing is known of {request_id!r:.120}, or no more", "not_found")
        return self._ticket(record, key, {})

    def _own_record(self, request_id: str) -> Record | None:
        """The record of an answer that this gateway gives or has just given, and that Redis may have lost; else ``None``."""
        own = [*(ticket.record for ticket in self.open), *(ended.record for ended in self._ended)]
        return next((record for record in own if record.id == request_id), None)

    async def find_stream(self, request_id: str, key: AccessKey) -> Ticket:
        """The same for a client that goes on with its stream: nobody who has left it before cancels it any more.

        Raises:
            Refusal: nobody knows it, or it is another key's.
            BrokerUnavailable: Redis cannot be reached.
        """
        found = await self.find(request_id, key)
        return replace(found, reader=await asyncio.to_thread(self._store.add_reader, request_id))

    def follow(self, ticket: Ticket, stirred: Bell, after: Sequence[int] = ()) -> Following:
        """Read a request's answer behind what its reader has of each choice; whenever there is news, the bell rings."""
        return Following(ticket.results, stirred, self._mailbox, after)

    async def is_read_elsewhere(self, ticket: Ticket) -> bool:
        """Whether somebody has gone on with a stream since this ticket's reader."""
        try:
            return await asyncio.to_thread(self._store.readers, ticket.record.id) > ticket.reader
        except GenerationError:
            return False

    async def cancel(self, ticket: Ticket) -> None:
        """Free the places that a request has in its workers' batches."""
        try:
            await asyncio.gather(*(asyncio.to_thread(result.revoke, terminate=True) for result in ticket.results))
        except GenerationError as error:
            logger.warning("%s could not be cancelled: %s", ticket.record.id, error)

    async def position(self, ticket: Ticket) -> Position | None:
        """Return the place of a request in its queue; of its first choice, if there are several."""
        try:
            return await asyncio.to_thread(self._store.position, ticket.record.id)
        except GenerationError:
            return None

    async def status(self, ticket: Ticket) -> RequestStatus:
        """Return the status of the first choice of a request.

        Raises:
            BrokerUnavailable: Redis cannot be reached.
        """
        return await asyncio.to_thread(_look, ticket.results[0])

    async def close(self, ticket: Ticket, choices: Sequence[Choice]) -> None:
        """Count the cost of an answer: the usage of choices that have ended, and the tokens so far of others."""
        prompt = max((choice.finish.usage.get("prompt_tokens", 0) for choice in choices if choice.finish), default=0)
        await self.charge(ticket, prompt, sum(choice.tokens for choice in choices))

    async def charge(self, ticket: Ticket, prompt: int, completion: int) -> None:
        """Count the tokens that an answer has cost; it is open no more."""
        self.open.pop(ticket, None)
        self._ended.append(Ended(time.monotonic(), ticket.record, ticket.key, prompt, completion))
        try:
            await asyncio.to_thread(self._store.charge, ticket.record, ticket.key, prompt, completion)
        except GenerationError as error:
            logger.warning("the cost of %s is not counted yet: %s", ticket.record.id, error)

    async def keep_open(self, every_s: float) -> None:
        """Say again and again which requests are open, so that those of a gateway that has died count no more, and which of
        those that have just ended Redis lost."""
        while True:
            await asyncio.sleep(every_s)
            edge = time.monotonic() - min(KEEP_S, self._store.record_ttl_s)  # a record that has expired is not lost
            while self._ended and self._ended[0].at < edge:
                self._ended.popleft()
            try:
                await asyncio.to_thread(self._keep, [ticket.record for ticket in self.open], list(self._ended))
            except GenerationError as error:
                logger.warning("open requests could not be renewed: %s", error)

    def _keep(self, records: list[Record], ended: list[Ended]) -> None:
        if records:
            self._store.renew(records)
        for each, lost in zip(ended, self._store.uncharged([each.record for each in ended]), strict=True):
            if lost:
                self._store.charge(each.record, each.key, each.prompt, each.completion)

    def _ticket(self, record: Record, key: AccessKey, headers: dict[str, str]) -> Ticket:
        task = self._task(record.kind)
        return Ticket(record, key, [task.AsyncResult(id_) for id_ in record.task_ids], headers)

    def _task(self, kind: str) -> GenerateTask:
        return self._others.get(kind, self._generate)

    async def _send(self, order: Order, record: Record, priority: int) -> None:
        if len(order.values) == 1:
            task = self._task(order.kind)
            await task.aapply_async(kwargs=order.values[0], task_id=record.id, priority=priority)
            return
        members = group(
            self._generate.signature(kwargs=values, task_id=task_id, priority=priority)
            for values, task_id in zip(order.values, record.task_ids, strict=True)
        )
        await self._generate.sender.send(members.apply_async)


def _look(result: GenerateResult) -> RequestStatus:
    # The name alone asks Redis for Celery's state.
    return result.status()
