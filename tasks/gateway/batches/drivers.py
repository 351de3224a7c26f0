"""Chooses the batches that this gateway drives, by leases in Redis. A batch whose gateway has died goes on at another one."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from typing import TYPE_CHECKING

from tasks.errors import GenerationError
from tasks.gateway.batches.drive import Drive
from tasks.gateway.connection.refusal import Refusal

if TYPE_CHECKING:
    from tasks.gateway.batches.batch import Batch
    from tasks.gateway.batches.drive import BatchContext

logger = logging.getLogger(__name__)

#: Batches that one gateway drives at a time. Each keeps the fleet's idle slots full.
AT_ONCE = 4
LOOK_S = 1.0
SWEEP_EVERY_S = 600.0
#: The time after which a batch whose folder could not be used is tried again.
RETRY_S = 10.0


class Drivers:
    """A thread that looks for batches, and one for each that it drives.

    Args:
        context: the parts that every batch needs.
        lease_s: how long the others wait for this gateway's word.
    """

    def __init__(self, context: BatchContext, lease_s: int) -> None:
        self._context = context
        self._lease_s = lease_s
        self._holder = uuid.uuid4().hex
        self._stirred = threading.Event()
        self._stopped = False
        self._running: dict[str, tuple[Drive, threading.Thread]] = {}
        self._not_before: dict[str, float] = {}
        self._sweep_at = 0.0
        self._trouble = ""
        self._thread = threading.Thread(target=self._run, name="celery-mlx-batches", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stir(self) -> None:
        """There is something to do. From any thread."""
        self._stirred.set()

    def stop(self) -> None:
        """End; batches that are not done go on at the next gateway. Blocks until it has ended."""
        self._stopped = True
        self._stirred.set()
        self._thread.join()
        for drive, _ in self._running.values():
            drive.stop()
        for _, thread in self._running.values():
            thread.join()

    def _run(self) -> None:
        while not self._stopped:
            try:
                self._look()
                self._trouble = ""
            except (OSError, GenerationError, Refusal) as error:
                if str(error) != self._trouble:
                    logger.warning("batches: %s", error)
                self._trouble = str(error)
            self._stirred.wait(min(LOOK_S, self._lease_s / 3))
            self._stirred.clear()

    def _look(self) -> None:
        self._running = {name: (drive, thread) for name, (drive, thread) in self._running.items() if thread.is_alive()}
        for name, (drive, _) in self._running.items():
            if not self._context.store.lease(name, self._holder, self._lease_s):
                logger.warning("%s continues at another gateway, which has not heard of this one for too long", name)
                drive.stop()
        unfinished = self._context.batches.unfinished()
        revoked = self._context.store.revoked({batch.owner for batch in unfinished})
        for batch in unfinished:
            if batch.owner in revoked and self._context.batches.cancelling_at(batch) is None:
                logger.info("%s is cancelled: its API key %s was revoked", batch.id, batch.owner)
                self._context.batches.cancel(batch)
            if len(self._running) < AT_ONCE and batch.id not in self._running:
                self._take(batch)
        if time.monotonic() >= self._sweep_at:
            self._sweep_at = time.monotonic() + SWEEP_EVERY_S
            self._context.batches.forget_expired()
            self._context.files.forget_expired()

    def _take(self, seen: Batch) -> None:
        """Drive a batch, unless another gateway does, or it was just tried in vain."""
        if time.monotonic() < self._not_before.get(seen.id, 0.0):
            return
        if not self._context.store.lease(seen.id, self._holder, self._lease_s):
            return
        batch = self._context.batches.find(seen.id, seen.owner)  # another gateway may have ended it since
        drive = Drive(self._context, batch)
        thread = threading.Thread(target=self._drive, args=(drive,), name=f"celery-mlx-{batch.id}", daemon=True)
        self._running[batch.id] = drive, thread
        thread.start()

    def _drive(self, drive: Drive) -> None:
        name = drive.batch.id
        try:
            drive.run()
        except (OSError, GenerationError) as error:
            logger.warning("%s cannot go on now: %s", name, error)
            self._not_before[name] = time.monotonic() + RETRY_S
        except Exception:
            logger.exception("%s has ended with an error of this program; it is tried again", name)
            self._not_before[name] = time.monotonic() + RETRY_S
        try:
            self._context.store.lease(name, self._holder, 0)
        except GenerationError as error:
            logger.warning("%s is free only once its lease has passed: %s", name, error)
