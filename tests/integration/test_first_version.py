"""A fleet in the middle of its upgrade: what workers and producers of the first version left in Redis is taken up by this one.

``tests/first_version.json`` was recorded from version 0.1.0: a producer sent four requests. One was answered. One ran on
``mac-1`` when it was killed, and one on ``mac-2`` when it was stopped and gave it back. The last one waits in its queue.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tasks.engine.fake import fake_text
from tasks.messages.journal import Token, decode
from tasks.server import keys
from tests.support import ROOT, Reader, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    import redis

    from tasks.generate import GenerateTask
    from tests.conftest import StartWorker

WAIT_S = 60.0
#: Prompt, seed and tokens of each request, as they were sent.
SENT = {"whole": (7, 6), "killed": (8, 80), "back": (9, 80), "queued": (10, 5)}
RECORDED: dict[str, Any] = json.loads((ROOT / "tests" / "first_version.json").read_text(encoding="utf-8"))
IDS: dict[str, str] = RECORDED["ids"]
ENV = {"CELERY_MLX_MODELS": "fake:20", "CELERY_MLX_HEARTBEAT_S": "0.5", "CELERY_MLX_DEAD_AFTER_S": "10"}


def restore(client: redis.Redis) -> None:
    """Write the recorded keys."""
    for key, (kind, value) in RECORDED["keys"].items():
        if kind == "string":
            client.set(key, value)
        elif kind == "list":
            client.rpush(key, *value)
        elif kind == "set":
            client.sadd(key, *value)
        elif kind == "hash":
            client.hset(key, mapping=value)
        elif kind == "zset":
            client.zadd(key, dict(value))
        else:
            for entry_id, fields in value:
                client.xadd(key, fields, id=entry_id)


def emitted(client: redis.Redis, name: str) -> str:
    """The text in a request's journal."""
    found: Any = client.xrange(keys.stream(IDS[name]))
    entries = [decode(fields["d"]) for _, fields in found]
    return "".join(entry.text for entry in entries if isinstance(entry, Token))


def test_what_it_left_is_taken_up(
    generate: GenerateTask, worker: StartWorker, redis_client: redis.Redis, tmp_path: Path
) -> None:
    """Each request has its whole answer: from the old journal and result, or continued by a worker of this version."""
    restore(redis_client)
    before = {name: emitted(redis_client, name) for name in SENT}
    assert all(before[name] for name in ("whole", "killed", "back"))
    results = {name: generate.AsyncResult(task_id) for name, task_id in IDS.items()}
    assert results["whole"].get(timeout=WAIT_S)["text"] == before["whole"]
    readers = {name: Reader(result, WAIT_S) for name, result in results.items()}

    node = worker("-B", "-s", str(tmp_path / "beat"), "-c", "4", env=ENV)
    for name, (seed, tokens) in SENT.items():
        assert readers[name].whole() == fake_text(name, seed, tokens)
        assert readers[name].text.startswith(before[name])
        answer = results[name].get(timeout=WAIT_S)
        assert (answer["text"], answer["usage"]["completion_tokens"]) == (readers[name].text, tokens)
    attempts = {name: (result.get()["attempt"], result.get()["worker"]) for name, result in results.items()}
    assert attempts == {
        "whole": (1, "mac-1@lab"),
        "killed": (2, node.node),
        "back": (2, node.node),
        "queued": (1, node.node),
    }
    wait_until(lambda: not redis_client.hlen(keys.LEDGER) and not redis_client.keys(f"{keys.PREFIX}unacked*"))
    assert redis_client.hkeys(keys.WORKERS) == [node.node]
