"""Kombu's Redis transport, repaired and extended in the eight places where this project needs more than it gives.

1. **A queue is asked for only while it has room** (:class:`.channel.holding.Room`), so that a worker hoards nothing that an idle
   machine could run. The stock way, closing ``qos.can_consume``, may leave a message that BRPOP has already popped
   unread in the socket for as long as the gate is closed.
2. **A channel that is lost restores nothing.** The stock one puts every unacknowledged message back while its task still
   runs: one dropped connection ran every running task twice (measured). What a worker holds is in ``unacked`` keys of
   its own, and only the sweep, or the worker's own last act, returns it.
3. **Commands go through one pool per process**, so that a task which began on a channel that is gone can still
   acknowledge. The stock pool goes with its channel; Celery 5.7 then dies on the next Redis restart with
   ``AttributeError: 'NoneType' object has no attribute 'hostname'`` (reproduced 5 times).
4. **A message that is given back goes to the front** of its queue; the stock one sends it to the back.
5. **A generation is written into the ledger** in the same script that queues it, with the time by Redis's clock, so that
   a message which is lost between BRPOP and the write to ``unacked`` is missed, and sent again by the sweep.
6. **A message may be set aside** for its model: beside its queue, where every worker that can run the model just then asks
   for it, and no other does. It keeps its place among the requests for this model.
7. **What a worker holds is noted and forgotten in one call each**; kombu's two transactions were a quarter of a busy
   worker's time (py-spy). These calls share a connection with all others of the worker (:mod:`tasks.server.pipeline`).
8. **Nothing is read, or unpacked, beyond a bound** (:mod:`tasks.broker.message.message`), and nothing that a message or a
   broadcast holds ends the worker.

The channel is in :mod:`tasks.broker.channel.channel`, what a worker holds in :mod:`tasks.broker.channel.qos`.
"""

from __future__ import annotations

from typing import Any

from kombu.connection import resolve_aliases
from kombu.transport import redis as stock

from tasks.broker.channel.channel import Channel
from tasks.broker.channel.holding import holding_of, log_refusal
from tasks.broker.message.envelope import check_frame, task_id_of
from tasks.broker.message.message import blames_message, fault
from tasks.errors import InvalidRequest
from tasks.names import PACKAGE


class Transport(stock.Transport):
    """``broker_transport = "tasks.broker.transport:Transport"``."""

    Channel = Channel

    def _deliver(self, message: Any, queue: str) -> None:
        """Hand a message on; one that kombu cannot make anything of is dropped."""
        try:
            check_frame(message)
            super()._deliver(message, queue)
        except InvalidRequest as error:
            self._refuse(message, str(error))
        except Exception as error:
            if not blames_message(error, self):
                raise
            self._refuse(message, f"its message cannot be read ({fault(error)})")

    def _refuse(self, message: Any, why: str) -> None:
        holding = holding_of(self.client.transport_options)
        refuse = holding.refuse if holding is not None else log_refusal
        refuse(task_id_of(message), why)


# How kombu shows an address, in a worker's banner and in Flower: as redis://, which is what was written.
resolve_aliases.update(
    dict.fromkeys(("celery_mlx.broker.transport:Transport", f"{PACKAGE}.broker.transport:Transport"), "redis")
)
