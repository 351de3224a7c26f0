"""The hash of a bulk job in Redis: for ``bulk status`` and ``bulk cancel``. Going on needs the output alone."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from tasks.errors import BrokerUnavailable
from tasks.registry.values import text
from tasks.server import keys
from tasks.server.connection import translated

if TYPE_CHECKING:
    import redis

#: A job that nobody goes on with is forgotten.
TTL_S = 7 * 86_400
#: A driver that was silent for longer is gone.
SILENT_S = 15.0
CANCEL = "cancel"


@dataclass(slots=True, kw_only=True)
class JobRecord:
    """One job. Times are Unix seconds; ``total`` is 0 where it is not known, ``deadline`` where there is none."""

    job_id: str
    source: str = ""
    output: str = ""
    status: str = "running"
    total: int = 0
    done: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    started_at: float = 0.0
    updated_at: float = 0.0
    deadline: float = 0.0

    @property
    def state(self) -> str:
        """Its status; a job that runs, and whose driver is silent, is ``interrupted``."""
        silent = self.status == "running" and time.time() - self.updated_at > SILENT_S
        return "interrupted" if silent else self.status


class Records:
    """Reads and writes the hashes.

    Args:
        client: Redis.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def write(self, record: JobRecord) -> bool:
        """Say how far a job is; whether somebody wants it to be cancelled.

        Raises:
            BrokerUnavailable: Redis cannot be reached.
        """
        record.updated_at = time.time()
        name = keys.bulk(record.job_id)
        with translated(f"noting the job {record.job_id}"):
            pipeline = self._client.pipeline(transaction=False)
            pipeline.hset(name, mapping={key: str(value) for key, value in asdict(record).items()})
            pipeline.expire(name, TTL_S)
            pipeline.zadd(keys.BULK_JOBS, {record.job_id: record.updated_at})
            pipeline.hdel(name, CANCEL)
            return bool(pipeline.execute()[-1])

    def read(self, job_id: str) -> JobRecord | None:
        """One job; ``None`` where there is none.

        Raises:
            BrokerUnavailable: Redis cannot be reached.
        """
        with translated(f"reading the job {job_id}"):
            stored: Any = self._client.hgetall(keys.bulk(job_id))
        values = {text(key): text(value) for key, value in stored.items()}
        if "job_id" not in values:
            return None
        kinds: dict[str, Any] = {"str": str, "int": int, "float": float}
        known = {
            field_.name: kinds[str(field_.type)](values[field_.name])
            for field_ in fields(JobRecord)
            if field_.name in values
        }
        return JobRecord(**known)

    def all(self) -> list[JobRecord]:
        """All jobs, the newest first.

        Raises:
            BrokerUnavailable: Redis cannot be reached.
        """
        with translated("looking for jobs"):
            job_ids: Any = self._client.zrevrange(keys.BULK_JOBS, 0, -1)
        found = {text(job_id): self.read(text(job_id)) for job_id in job_ids}
        expired = [job_id for job_id, record in found.items() if record is None]
        if expired:
            # A reader without the right to write leaves them.
            with suppress(BrokerUnavailable), translated("forgetting jobs"):
                self._client.zrem(keys.BULK_JOBS, *expired)
        return sorted(
            (record for record in found.values() if record is not None), key=lambda record: -record.started_at
        )

    def cancel(self, job_id: str) -> None:
        """Have the driver of a job stop.

        Raises:
            BrokerUnavailable: Redis cannot be reached.
        """
        with translated(f"cancelling the job {job_id}"):
            self._client.hset(keys.bulk(job_id), CANCEL, "1")
