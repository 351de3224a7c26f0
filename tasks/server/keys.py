"""The Redis keys of this project: the type of each, its writers, and how long it lives.

Celery's own keys (queues, ``celery-task-meta-*``) are not here. A reader needs ``stream`` alone.

``stream``
    Stream, and a pub/sub channel of the same name: the journal of a request. Written by the worker that holds the claim. Lives
    until an hour after the request's end.
``cancel``
    String: the mark that a request was cancelled. Written by whoever cancels. Lives a day.
``WORKERS``
    Hash, node name → record. Written by each worker's keeper, deleted by the sweep.
``alive``
    String: the lease of one ``node#boot``. Written by its keeper, deleted by the sweep. Lives ``dead_after_s`` after the last
    beat.
``swept``
    String: the mark that a ``node#boot`` was declared dead. Written by the sweep or a successor, deleted by a registration. Lives
    a week.
``OWNERS``
    Set of every ``node#boot`` that may still hold messages. Keepers add at registration, and workers with each note of a message;
    the sweep removes.
``HISTORY``
    List of the last 100 records of departed workers, newest first. Written by the sweep and by leaving workers.
``EVENTS``
    Pub/sub channel: announcements about workers.
``SWEEP_LOCK``, ``SWEEP``
    String: the beat that sweeps. Lives a few seconds. Hash: when the last sweep was, and whose. Both are written by beat's
    process.
``LIMITS``
    Hash, queue → bound and throughput as JSON. Written by the sweep every few seconds.
``request``
    String: a digest of a request's parameters. Written by its producer and its claims. Lives a day longer than results.
``collected``
    String: the mark that somebody has the answer of a request for good, and has deleted its journal. Written by a bulk job's
    driver. Lives a minute.
``LEDGER``
    Hash, task id → message, queue and time of a submission. Written by producers; deleted by a claim, by the journal's end and by
    the sweep.
``ASIDE``
    Sorted set, list of requests that were set aside for a model → time of the first of each. Workers add lists, and remove empty
    ones. The lists themselves are beside the queues' own (:func:`tasks.broker.queues.queues.aside_list`). So are the lanes of
    workers (:func:`tasks.broker.queues.queues.lane_of`), which producers add.
``AFFINITY_WORKERS``
    Hash, node name → time, boot and slots of a worker that takes requests from its lanes. Written by workers every two seconds,
    deleted by the sweep.
``warm``
    Hash, node name → time at which the worker computed a prompt that begins with this digest, and the milliseconds that a request
    may wait for it. Written by workers. Lives five minutes.
``scheduled``
    Sorted set for each queue, message that is not due yet (``countdown``, ``eta``) → Unix time at which it is. Producers and
    workers add; workers move due messages to the queue. A member is the list in Redis, a line break, and the message.
``bulk``
    Hash: the progress of a bulk job. Written by its driver every second; a cancel adds a field. Lives a week.
``BULK_JOBS``
    Sorted set, id of a bulk job → time of its driver's last write. Drivers add, readers remove expired jobs.
``unacked``, ``unacked_index``
    Hash and sorted set: the messages that one ``node#boot`` holds. Written by that worker. Live until the messages are
    acknowledged or swept.
``GATEWAY_KEYS``
    Hash, SHA-256 of an API key → rights of its holder. Written by ``celery -A tasks keys``. Lives for ever.
``gateway_request``
    Hash: the record that a gateway needs to continue an answer, and whether its cost was counted. Written by gateways. Lives as
    long as results.
``gateway_batch``
    Hash: the gateway that drives a batch. Written by gateways. Lives ``gateway_batch_lease_s``.
``gateway_usage``, ``gateway_allowance``, ``gateway_open``
    Hash: the usage of an API key. Lives for ever. Hash: the rest of the key's limits. Lives two minutes. Sorted set, open request
    of the key → Unix time until which it counts as open. All are written by gateways.
"""

from __future__ import annotations

from urllib.parse import quote

PREFIX = "celery-mlx:"

WORKERS = f"{PREFIX}workers"
HISTORY = f"{PREFIX}history"
EVENTS = f"{PREFIX}events"
SWEEP_LOCK = f"{PREFIX}sweep-lock"
SWEEP = f"{PREFIX}sweep"
LEDGER = f"{PREFIX}ledger"
OWNERS = f"{PREFIX}owners"
LIMITS = f"{PREFIX}limits"
ASIDE = f"{PREFIX}aside"
AFFINITY = f"{PREFIX}affinity:"
AFFINITY_WORKERS = f"{AFFINITY}workers"
BULK_JOBS = f"{PREFIX}bulk-jobs"
GATEWAY_KEYS = f"{PREFIX}gateway:keys"


def scheduled(queue: str) -> str:
    """The messages of a queue that are not due yet, by the time at which they are."""
    return f"{PREFIX}scheduled:{queue}"


def warm(digest: str) -> str:
    """The workers on which a prompt that begins like this is warm."""
    return f"{AFFINITY}warm:{digest}"


def stream(task_id: str) -> str:
    """The journal of one request, and its pub/sub channel."""
    return f"{PREFIX}stream:{task_id}"


def channel_prefix(database: int) -> str:
    """The prefix of a key's channel before the key's name: a server's channels are the same in all its databases."""
    return f"/{database}." if database else ""


def cancel(task_id: str) -> str:
    """The mark that a request was cancelled, for workers that did not hear the broadcast."""
    return f"{PREFIX}cancel:{task_id}"


def request(task_id: str) -> str:
    """The fingerprint of the request that has this id: no other may have it."""
    return f"{PREFIX}request:{task_id}"


def collected(task_id: str) -> str:
    """The mark that nobody needs the journal of this request any more. Producers have no rights beyond those to ``request``."""
    return f"{PREFIX}request:collected:{task_id}"


def bulk(job_id: str) -> str:
    """The progress of a bulk job."""
    return f"{PREFIX}bulk:{job_id}"


def alive(identity: str) -> str:
    """The lease of one worker: present while its keeper beats."""
    return f"{PREFIX}alive:{identity}"


def swept(identity: str) -> str:
    """The mark that one worker was declared dead, and that its messages were given to others."""
    return f"{PREFIX}swept:{identity}"


def connection(identity: str) -> str:
    """The name of the Redis connection that stands for one worker's life; CLIENT SETNAME allows ``!`` to ``~`` alone."""
    return f"{PREFIX}{quote(identity, safe='@#:/+=,')}"


def unacked(identity: str) -> str:
    """The messages that one worker has fetched and not acknowledged (kombu's ``unacked_key``)."""
    return f"{PREFIX}unacked:{identity}"


def unacked_index(identity: str) -> str:
    """The time at which each of them was fetched (kombu's ``unacked_index_key``)."""
    return f"{PREFIX}unacked-index:{identity}"


def gateway_request(request_id: str) -> str:
    """The gateways' record of one request over HTTP."""
    return f"{PREFIX}gateway:request:{request_id}"


def gateway_usage(key_id: str) -> str:
    """The usage of an API key."""
    return f"{PREFIX}gateway:usage:{key_id}"


def gateway_allowance(key_id: str) -> str:
    """The rest of an API key's limits."""
    return f"{PREFIX}gateway:allowance:{key_id}"


def gateway_open(key_id: str) -> str:
    """The open requests of an API key."""
    return f"{PREFIX}gateway:open:{key_id}"


def gateway_batch(batch_id: str) -> str:
    """The gateway that drives a batch."""
    return f"{PREFIX}gateway:batch:{batch_id}"
