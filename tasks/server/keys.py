"""Every Redis key of this project: its type, who writes it and how long it lives.

Celery's own keys (queues, ``celery-task-meta-*``) are not here. A reader needs ``stream`` alone.

``stream``
    A stream, and a pub/sub channel of the same name; the worker that holds the claim writes it, and it lives until an
    hour after its request's end.
``cancel``
    A string; the canceller writes it, for a day.
``WORKERS``
    A hash, node name → record; each worker's keeper writes, the sweep deletes.
``alive``
    A string, the lease of one ``node#boot``; its keeper writes, the sweep deletes; ``dead_after_s`` after the last beat.
``swept``
    A string, the mark that a ``node#boot`` was declared dead; the sweep or a successor writes, a registration deletes; a week.
``OWNERS``
    A set of every ``node#boot`` that may still hold messages; keepers add at registration, the sweep removes.
``HISTORY``
    A list of records of departed workers, newest first; the sweep and leaving workers write; the last 100.
``EVENTS``
    A pub/sub channel: announcements about workers.
``SWEEP_LOCK``, ``SWEEP``
    A string, who sweeps, for a few seconds; a hash, when and by whom the last sweep was done. Beat's process writes both.
``LIMITS``
    A hash, queue → bound and throughput as JSON; the sweep writes, every few seconds.
``request``
    A string, a few digits of what a request asks for; its producer and its claims write, for a day longer than results are kept.
``collected``
    A string, the mark that somebody has the answer of a request for good and has deleted its journal; a bulk job's driver
    writes, for a minute.
``LEDGER``
    A hash, task id → what was submitted where and when; producers write, a claim, the journal's end and the sweep delete.
``ASIDE``
    A sorted set, lists of requests that were set aside for a model → when the first of each was; workers add, and remove what
    is empty. The lists themselves are beside the queues' own (:func:`tasks.broker.queues.aside_list`).
    So are the lanes of workers (:func:`tasks.broker.queues.lane_of`); producers add those.
``AFFINITY_WORKERS``
    A hash, node name → when, by which boot and with how many slots it takes requests from its lanes; workers write, every two
    seconds, the sweep deletes.
``warm``
    A hash, node name → when the worker computed a prompt that begins with this digest, and for how many ms a request is worth
    waiting for it; workers write; five minutes.
``scheduled``
    A sorted set for each queue, messages that are not due yet (``countdown``, ``eta``) → Unix time at which they are. Producers
    and workers add; workers move what is due to the queue. A member is the list in Redis, a line break, and the message.
``bulk``
    A hash, how far a bulk job is; its driver writes, every second, for a week; a cancel adds a field.
``BULK_JOBS``
    A sorted set, ids of bulk jobs → when its driver last wrote; drivers add, readers remove what has expired.
``unacked``, ``unacked_index``
    A hash and a sorted set: messages that one ``node#boot`` holds; that worker writes, until they are acknowledged or swept.
``GATEWAY_KEYS``
    A hash, SHA-256 of an API key → what its holder may do; ``celery -A tasks keys`` writes, for ever.
``gateway_request``
    A hash, what a gateway needs to go on with an answer, and whether its cost was counted; gateways write, for as long as results
    are kept.
``gateway_batch``
    A hash with the gateway that drives a batch; gateways write, for ``gateway_batch_lease_s``.
``gateway_usage``, ``gateway_allowance``, ``gateway_open``
    A hash, what was counted of a key's requests, for ever; a hash, what is left of its limits, for two minutes; a sorted set, its
    open requests → Unix time until which they count as open. Gateways write.
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
