"""Drives one batch from its check to its files. Another gateway continues it from the folder."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from tasks.bulk.job import Job, Options
from tasks.bulk.output import Done
from tasks.errors import InvalidRequest
from tasks.gateway.batches.check import Check
from tasks.gateway.batches.files import BATCH_OUTPUT
from tasks.gateway.records.access_key import AccessKey
from tasks.gateway.records.record import Record
from worker_config.celeryconfig import settings_of

if TYPE_CHECKING:
    from pathlib import Path

    from celery import Celery

    from tasks.gateway.batches.batch import Batch
    from tasks.gateway.batches.batches import Batches
    from tasks.gateway.batches.files import Files
    from tasks.gateway.records.store import Store

#: The interval at which the record is written while lines end.
NOTE_EVERY_S = 1.0


@dataclass(slots=True, frozen=True)
class BatchContext:
    """The context of every batch: the application that its requests go to, the folder, and the gateways' records in Redis."""

    app: Celery
    files: Files
    batches: Batches
    store: Store


class Drive:
    """One batch.

    Args:
        context: the parts that every batch needs.
        batch: its record.
    """

    def __init__(self, context: BatchContext, batch: Batch) -> None:
        self._context = context
        self.batch = batch
        self._stopped = False
        self._noted_at = 0.0

    def stop(self) -> None:
        """Have the drive end soon; the batch stays as far as it is. From any thread."""
        self._stopped = True

    def run(self) -> None:
        """Drive it to its end.

        Raises:
            OSError: the folder cannot be used now.
            GenerationError: the output cannot be written now, or Redis cannot be reached.
        """
        batch = self.batch
        if batch.status == "validating":
            self._validate()
        if batch.status == "in_progress":
            self._answer()
        if batch.status == "finalizing":
            self._finish()

    def _validate(self) -> None:
        batch = self.batch
        allows = AccessKey(id=batch.owner, name="", models=tuple(batch.models)).allows
        found = Check(batch.endpoint, settings_of(self._context.app).default_model, allows)
        try:
            found.read(self._context.files.content(batch.input_file_id))
        except FileNotFoundError:
            self._fail("the input file is gone")
            return
        batch.total, batch.errors = found.count, found.errors
        batch.model = found.models.pop() if len(found.models) == 1 else None
        self._come_to("failed" if batch.errors else "in_progress")

    def _answer(self) -> None:
        batch = self.batch
        left_s = max(1e-6, batch.expires_at - time.time())  # less than the way to the first line: none is sent too late
        options = Options(deadline_s=left_s, job_id=batch.id.removeprefix("batch_"))
        source, target = self._context.files.content(batch.input_file_id), self._context.batches.lines(batch)
        try:
            job = Job(self._context.app, source, target, options=options)
        except InvalidRequest as error:
            self._fail(str(error))
            return
        with job:
            for _ in job.steps():
                self._note(job)
                if self._stopped:
                    return
                if self._context.batches.cancelling_at(batch) is not None:
                    batch.outcome = "cancelled"
                    break
        if job.record.status == "cancelled":  # by ``celery -A tasks bulk cancel``
            batch.outcome = "cancelled"
        self._come_to("finalizing")

    def _note(self, job: Job) -> None:
        now = time.monotonic()
        if now >= self._noted_at:
            self._noted_at = now + NOTE_EVERY_S
            self._count(job.done)
            self._context.batches.write(self.batch)

    def _count(self, done: Done) -> None:
        batch = self.batch
        batch.failed, batch.completed = done.failed, len(done.numbers) - done.failed
        batch.prompt_tokens, batch.completion_tokens = done.prompt_tokens, done.completion_tokens

    def _finish(self) -> None:
        """Make the two files of OpenAI's out of the one with all lines; done twice it is the same."""
        batch, lines = self.batch, self._context.batches.lines(self.batch)
        done, expired = self._split(lines) if lines.exists() else (Done(), False)
        self._count(done)
        if expired and batch.outcome == "completed" and time.time() >= batch.expires_at:
            batch.outcome = "expired"
        record = Record(id=batch.id, kind="batch", model=batch.model or "", created=batch.created_at, owner=batch.owner)
        self._context.store.count(record, batch.prompt_tokens, batch.completion_tokens)
        self._come_to(batch.outcome)
        lines.unlink(missing_ok=True)

    def _split(self, lines: Path) -> tuple[Done, bool]:
        """Split the output, and return its sums and whether there was no time for some of it."""
        batch, files = self.batch, self._context.files
        parts = {"output": files.part(), "error": files.part()}
        done, expired = Done(), False
        with ExitStack() as stack:
            source = stack.enter_context(lines.open("rb"))
            targets = {name: stack.enter_context(part.open("wb")) for name, part in parts.items()}
            for number, text in enumerate(source):
                if not text.endswith(b"\n"):
                    break  # a torn line of a batch that was cancelled
                record = json.loads(text)
                done.add(number, record)
                targets["output" if _has_answer(record) else "error"].write(text)
                expired = expired or (record.get("error") or {}).get("code") == "batch_expired"
        batch.output_file_id = self._keep("output", parts["output"])
        batch.error_file_id = self._keep("error", parts["error"])
        return done, expired

    def _keep(self, kind: str, part: Path) -> str | None:
        """The id of a file of the batch's; ``None`` where it has nothing in it."""
        batch = self.batch
        if not part.stat().st_size:
            part.unlink()
            return None
        digest = blake2b(f"{batch.id}:{kind}".encode(), digest_size=16).hexdigest()
        return self._context.files.add(
            part,
            owner=batch.owner,
            filename=f"{batch.id}_{kind}.jsonl",
            purpose=BATCH_OUTPUT,
            ttl_s=batch.output_ttl_s,
            file_id=f"file-{digest}",
        ).id

    def _fail(self, message: str) -> None:
        self.batch.errors = [{"code": "invalid_request", "message": message, "line": None, "param": None}]
        self._come_to("failed")

    def _come_to(self, status: Any) -> None:
        self.batch.come_to(status)
        self._context.batches.write(self.batch)


def _has_answer(record: dict[str, Any]) -> bool:
    response = record.get("response")
    return response is not None and response["status_code"] == 200
